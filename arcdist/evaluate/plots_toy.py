"""The picture of two-dimensional embeddings, as Figure 3 of the ArcFace paper and its relatives draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcdist.evaluate.plots import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, STYLE, VERMILION

_PEOPLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, "#7A5C3E", MUTED)
_COLUMNS = 4
_SPREAD = 0.28  # how thick the ring of directions is drawn, so that points do not hide each other

Panel = tuple[str, np.ndarray, np.ndarray, np.ndarray, Mapping[str, "float | None"]]


def toy_picture(path: str | Path, panels: Sequence[Panel]) -> None:
    """Draw for each loss the embeddings as they are, and below only their directions with the class centers.

    Args:
        path: of a PNG or SVG.
        panels: title, embeddings ``[N, 2]``, labels ``[N]``, centers ``[C, 2]``, and the mean angles in degrees.
    """
    blocks = -(-len(panels) // _COLUMNS)
    style = STYLE | {"axes.grid": False, "axes.titlesize": 9.5, "axes.titlepad": 5}
    style |= {"figure.constrained_layout.w_pad": 0.03, "figure.constrained_layout.h_pad": 0.03}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(2.35 * _COLUMNS, 5.0 * blocks))
        axes = figure.subplots(2 * blocks, _COLUMNS, squeeze=False)
        for panel in axes.flat:
            panel.set_axis_off()
        for index, (title, embeddings, labels, centers, angles) in enumerate(panels):
            row, column = 2 * (index // _COLUMNS), index % _COLUMNS
            axes[row, column].set_title(title, loc="center")
            _euclidean(axes[row, column], embeddings, labels)
            _angular(axes[row + 1, column], embeddings, labels, centers)
            told = f"within a person {angles['Intra']:.1f}°\nto the nearest other {angles['Inter']:.1f}°"
            axes[row + 1, column].text(0, -1.33, told, ha="center", va="top", color=MUTED, fontsize=8)
        figure.savefig(path)


def _euclidean(axes: Axes, embeddings: np.ndarray, labels: np.ndarray) -> None:
    reach = 1.05 * np.quantile(np.abs(embeddings), 0.998)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.scatter(*embeddings.T, s=3, c=_colors(labels), linewidths=0, alpha=0.7)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _angular(axes: Axes, embeddings: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> None:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    radius = 1 - _SPREAD * np.random.default_rng(0).random(len(unit))
    around = np.linspace(0, 2 * np.pi, 200)
    axes.plot(1.04 * np.cos(around), 1.04 * np.sin(around), color=FAINT, linewidth=1, zorder=0)
    axes.scatter(*(unit * radius[:, None]).T, s=3, c=_colors(labels), linewidths=0, alpha=0.7)
    for x, y in centers / np.linalg.norm(centers, axis=1, keepdims=True):
        axes.plot([0, 1.12 * x], [0, 1.12 * y], color=INK, linewidth=0.9)
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.85, 1.2), aspect="equal")


def _colors(labels: np.ndarray) -> list[str]:
    return [_PEOPLE[label % len(_PEOPLE)] for label in labels]
