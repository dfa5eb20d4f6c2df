"""Pictures of a table of methods over seeds: bars with their spread, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from arcdist.evaluate.plots import BLUE, INK, MUTED, STYLE, VERMILION

_ROW_IN = 0.24
_ACROSS = 4  # panels beside one another at most
_STYLE = STYLE | {
    "axes.grid.axis": "x",
    "axes.titlepad": 8,
    "axes.titlesize": 9,
    "figure.constrained_layout.w_pad": 0.05,
}


@dataclass(frozen=True)
class BarPanel:
    """A column of a table."""

    title: str
    values: Mapping[str, Sequence[float]]
    """By row, the value of each seed; rows without any are left empty."""
    marks: Mapping[str, float]
    """By row, a published value to stand beside."""
    ours: bool
    """Whether it is measured: in color. Otherwise it is published, in gray."""


@dataclass(frozen=True)
class Interval:
    """A difference, and the interval of its mean."""

    label: str
    mean: float | None
    """None: there is none yet."""
    half_width: float | None
    values: Sequence[float]
    """Of each seed."""


def table_bars(path: str | Path, title: str, note: str, rows: Sequence[str], panels: Sequence[BarPanel]) -> None:
    """Draw a bar a row in each panel, from 0: the mean over seeds, ± the spread, each seed a dot; by the file's ending.

    Args:
        rows: labels, from the top.
        note: what the panels have in common.
    """
    with matplotlib.rc_context(_STYLE):
        down = -(-len(panels) // _ACROSS)
        across = -(-len(panels) // down)
        figure = Figure(figsize=(2.6 + 1.9 * across, 0.9 + down * (0.7 + _ROW_IN * len(rows))))
        places = figure.subplots(down, across, sharey=True, squeeze=False).flat
        for axes, panel in zip(places, panels):
            for place, row in enumerate(rows):
                values = np.asarray(panel.values.get(row, ()), dtype=float)
                if len(values):
                    _bar(axes, place, values, panel.ours, panel.marks.get(row, 0.0))
                if row in panel.marks:
                    axes.plot(panel.marks[row], place, marker="D", color=MUTED, markersize=4, zorder=5)
            axes.set_title(panel.title)
            _rows(axes, rows)
            axes.set_xlim(0, axes.get_xlim()[1] * 1.28)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        if any(panel.marks for panel in panels):
            mark = Line2D([], [], color=MUTED, marker="D", markersize=4, linestyle="", label="the paper")
            figure.legend(handles=[mark], loc="outside lower right")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=MUTED)
        figure.savefig(path)


def _bar(axes: Axes, place: int, values: np.ndarray, ours: bool, mark: float) -> None:
    mean = float(values.mean())
    axes.barh(place, mean, height=0.7, color=BLUE if ours else MUTED, alpha=0.35 if ours else 0.25)
    reach = max(mean, float(values.max()))
    if len(values) > 1:
        spread = float(values.std(ddof=1))
        axes.errorbar(mean, place, xerr=spread, color=BLUE, capsize=2, linewidth=1)
        axes.plot(values, np.full(len(values), place), ".", color=BLUE, markersize=3)
        reach = max(reach, mean + spread)
    if reach < mark < 1.4 * reach:  # the number would lie below it
        reach = mark
    axes.annotate(f"{mean:.2f}", (reach, place), (5, 0), textcoords="offset points", va="center", fontsize=7)


def interval_rows(path: str | Path, title: str, note: str, groups: Mapping[str, Sequence[Interval]]) -> None:
    """Draw the mean of each difference with its interval, each seed a dot, in rows below one another.

    An interval right of 0 is blue, one left of 0 red, one that holds 0 gray. A group of rows is a panel.
    """
    heights = [len(rows) for rows in groups.values()]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 1.3 + 0.5 * len(heights) + 0.9 * _ROW_IN * sum(heights)))
        for axes, (name, rows) in zip(
            figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0], groups.items()
        ):
            axes.axvline(0, color=INK, linewidth=0.8)
            for place, row in enumerate(rows):
                _interval(axes, place, row)
            _rows(axes, [row.label if row.mean is not None else f"{row.label} (no cells)" for row in rows])
            axes.set_title(name)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=MUTED)
        figure.savefig(path)


def _interval(axes: Axes, place: int, row: Interval) -> None:
    if row.mean is None:
        return
    decided = row.half_width is not None and abs(row.mean) > row.half_width
    color = (BLUE if row.mean > 0 else VERMILION) if decided else MUTED
    if row.half_width is not None:
        axes.errorbar(row.mean, place, xerr=row.half_width, color=color, capsize=2.5, linewidth=1.2)
    axes.plot(row.values, np.full(len(row.values), place), ".", color=color, markersize=3, alpha=0.6)
    axes.plot(row.mean, place, "o", color=color, markersize=4.5)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, color=INK, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params("x", labelsize=7)
