"""The picture of two-dimensional embeddings under several losses (ArcFace paper, Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcdist.evaluate.plots import FAINT, INK, MUTED, SERIES, STYLE

Rows = npt.NDArray[np.floating]

_COLUMNS = 5
_COLORS = (*SERIES, "#332288", "#8C564B")  # eight that stay apart
_PANEL_IN = 1.9


def plane_panels(path: str | Path, panels: Mapping[str, tuple[Rows, Rows, npt.NDArray[np.integer]]], note: str) -> None:
    """Draw, for each loss, embeddings in the plane and below them their directions on the circle, to a PNG.

    Args:
        panels: by loss, embeddings ``[N, 2]``, centers ``[C, 2]``, of which the direction is drawn, labels ``[N]``.
        note: what the panels have in common.
    """
    rows = -(-len(panels) // _COLUMNS)
    style = STYLE | {"axes.grid": False, "axes.titlepad": 5, "axes.titlesize": 8}
    style |= {"figure.constrained_layout.w_pad": 0.03, "figure.constrained_layout.h_pad": 0.03}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_PANEL_IN * _COLUMNS, (2 * _PANEL_IN + 0.15) * rows + 0.4))
        axes = figure.subplots(2 * rows, _COLUMNS, squeeze=False)
        for panel in axes.flat:
            panel.set_axis_off()
        for place, (name, (embeddings, centers, labels)) in enumerate(panels.items()):
            above, below = (axes[2 * (place // _COLUMNS) + half, place % _COLUMNS] for half in (0, 1))
            above.set_title(name)
            _plane(above, embeddings, centers, labels)
            _circle(below, embeddings, centers, labels)
        figure.suptitle(note, fontsize=8, color=MUTED, x=0.01, ha="left")
        figure.savefig(path)


def _plane(axes: Axes, embeddings: Rows, centers: Rows, labels: npt.NDArray[np.integer]) -> None:
    reach = 1.05 * float(np.linalg.norm(embeddings, axis=1).max())
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.axvline(0, color=FAINT, linewidth=0.6)
    for label, center in enumerate(_unit(centers)):
        axes.plot([0, reach * center[0]], [0, reach * center[1]], color=_COLORS[label], linewidth=0.8, alpha=0.8)
        own = embeddings[labels == label]
        axes.plot(own[:, 0], own[:, 1], ".", color=_COLORS[label], markersize=2, alpha=0.5, markeredgewidth=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _circle(axes: Axes, embeddings: Rows, centers: Rows, labels: npt.NDArray[np.integer]) -> None:
    turn = np.linspace(0, 2 * np.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color=FAINT, linewidth=0.8)
    generator = np.random.default_rng(0)
    for label, center in enumerate(_unit(centers)):
        axes.plot([0, center[0]], [0, center[1]], color=_COLORS[label], linewidth=0.9)
        own = _unit(embeddings[labels == label])
        own *= 1 + 0.12 * generator.random((len(own), 1))  # spread outwards, so that dots do not hide one another
        axes.plot(own[:, 0], own[:, 1], ".", color=_COLORS[label], markersize=2, alpha=0.5, markeredgewidth=0)
    axes.plot(0, 0, "o", color=INK, markersize=1.5)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")


def _unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
