"""Pictures of losses themselves: target logit curves and decision boundaries (ArcFace paper, Figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from arcdist.errors import ConfigError
from arcdist.evaluate.plots import BLUE, FAINT, INK, MUTED, SERIES, STYLE, WIDTH_IN
from arcdist.margins import Margin

_POINTS = 721  # a quarter of a degree apart
_COLUMNS = 3


def target_logits(margin: Margin, theta_rad: np.ndarray) -> np.ndarray:
    """Return the target's logit over the scale at each angle, float64, of an embedding of length 1.

    Args:
        margin: any; its ``strength`` counts.
        theta_rad: ``[N]``, in [0, π].
    """
    cosine = torch.from_numpy(np.cos(theta_rad))
    with torch.no_grad():
        return (margin.target_logit(cosine, torch.ones_like(cosine)) / margin.scale).double().numpy()


def target_logit_curves(path: str | Path, margins: Mapping[str, Margin]) -> dict[str, list[float]]:
    """Draw the target logit over the angle to the own center to a PNG or SVG; return the values by whole degree."""
    theta = np.linspace(0, np.pi, _POINTS)
    curves = {name: target_logits(margin, theta) for name, margin in margins.items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.6))
        axes = figure.subplots()
        for (name, curve), color, dash in zip(curves.items(), cycle(SERIES), cycle(_dashes())):
            axes.plot(np.degrees(theta), curve, label=name, color=color, linestyle=dash, linewidth=1.5)
        axes.set_title("Target logit", pad=24)
        note = "over the scale, by the angle between an embedding and its own center"
        axes.annotate(note, (0, 1), (0, 10), xycoords="axes fraction", textcoords="offset points", color=MUTED)
        axes.set(xlim=(0, 180), ylim=(-2.05, 1.05), xticks=range(0, 181, 30))
        axes.xaxis.set_major_formatter("{x:.0f}°")
        axes.legend(loc="upper right")
        figure.savefig(path)
    return {name: [round(float(value), 6) for value in curve[:: _POINTS // 180]] for name, curve in curves.items()}


def decision_boundaries(path: str | Path, margins: Mapping[str, Margin]) -> None:
    """Draw where two classes part, by the angles to both centers, to a PNG or SVG; a panel a margin.

    On class 1's side its logit with the margin exceeds class 2's without; the band between the two sides is the margin.

    Raises ConfigError where no margin is given.
    """
    if not margins:
        raise ConfigError("margins: none is given; name at least one")
    theta = np.linspace(0, np.pi / 2, 361)
    rows = -(-len(margins) // _COLUMNS)
    style = STYLE | {"axes.grid": False, "axes.titlepad": 6, "axes.titlesize": 8.5}
    style |= {"figure.constrained_layout.w_pad": 0.05, "figure.constrained_layout.h_pad": 0.05}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH_IN, 2.55 * rows + 0.3))
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for (name, margin), panel in zip(margins.items(), panels):
            with_margin, without = target_logits(margin, theta), np.cos(theta)
            first = with_margin[None, :] > without[:, None]  # rows: θ₂; columns: θ₁
            second = with_margin[:, None] > without[None, :]
            side = np.where(first, 1.0, np.where(second, 2.0, 0.0))
            degrees = np.degrees(theta)
            colors = matplotlib.colors.ListedColormap([FAINT, _pale(BLUE), _pale(SERIES[1])])
            panel.pcolormesh(degrees, degrees, side, cmap=colors, vmin=0, vmax=2, rasterized=True)
            panel.plot([0, 90], [0, 90], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            panel.text(22, 70, "class 1", color=BLUE, ha="center")
            panel.text(68, 15, "class 2", color=SERIES[1], ha="center")
            panel.set_title(name)
            panel.set(aspect="equal", xticks=(0, 45, 90), yticks=(0, 45, 90))
            panel.set_xlabel("θ to center 1", labelpad=1)
            panel.set_ylabel("θ to center 2", labelpad=1)
            panel.xaxis.set_major_formatter("{x:.0f}°")
            panel.yaxis.set_major_formatter("{x:.0f}°")
        for panel in panels:
            panel.set_axis_off()
        figure.savefig(path)


def _pale(color: str) -> tuple[float, float, float]:
    red, green, blue = matplotlib.colors.to_rgb(color)
    return 0.75 + red / 4, 0.75 + green / 4, 0.75 + blue / 4


def _dashes() -> list[tuple[int, tuple[int, ...]]]:
    return [(0, ())] * len(SERIES) + [(0, (5, 2))] * len(SERIES)
