"""A picture of a plan: memory and time by part, and what more GPUs give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from arcdist.evaluate.plots import BLUE, INK, MUTED, PERCENT, STYLE, VERMILION, WIDTH_IN


def draw_plan(
    path: str | Path,
    memory_gib: Mapping[str, float],
    capacity_gib: float,
    step_ms: Mapping[str, float],
    scaling: Mapping[str, Sequence[tuple[int, float]]],
    note: str,
) -> None:
    """Draw a plan to a PNG.

    Args:
        memory_gib: of a GPU, by part.
        capacity_gib: what it has.
        step_ms: milliseconds of a step by part.
        scaling: by way, points (GPUs, efficiency against one GPU).
        note: what it is a plan of.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH_IN, 9.0))
        panels = figure.subplots(3, 1, height_ratios=[3, 2, 3])
        whole = sum(memory_gib.values())
        fits = f"{whole:.1f} of {capacity_gib:.0f} GiB" if whole <= capacity_gib else f"{whole:.1f} GiB: does not fit"
        figure.suptitle(note, color=MUTED, fontsize="medium")
        _bars(panels[0], memory_gib, f"Memory of a GPU: {fits}", "GiB at the fullest moment of a step", "{:.2f}")
        _bars(panels[1], step_ms, f"Time of a step: {sum(step_ms.values()):,.0f} ms", "ms by part", "{:,.2f}")
        panels[2].grid(True, axis="y")
        for (name, points), color in zip(scaling.items(), (BLUE, VERMILION)):
            gpus, efficiency = zip(*points)
            panels[2].plot(gpus, efficiency, color=color, marker="o", markersize=4, label=name)
        panels[2].set_xscale("log", base=2)
        ticks = [gpus for gpus, _ in next(iter(scaling.values()))][::2]
        panels[2].set_xticks(ticks, [f"{gpus:,}" for gpus in ticks])
        panels[2].xaxis.set_minor_locator(NullLocator())
        panels[2].set_ylim(0, None)
        panels[2].yaxis.set_major_formatter(PERCENT)
        panels[2].set_xlabel("GPUs")
        panels[2].legend(loc="lower left")
        panels[2].set_title("Scaling efficiency")
        figure.savefig(path)


def _bars(panel: Axes, values: Mapping[str, float], title: str, note: str, form: str) -> None:
    names = [name for name, value in values.items() if value > 0][::-1]
    bars = panel.barh(names, [values[name] for name in names], color=BLUE, height=0.6)
    panel.bar_label(bars, [form.format(values[name]) for name in names], padding=4, color=INK)
    panel.margins(x=0.12)
    panel.set_title(title)
    panel.annotate(note, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=MUTED, va="bottom")
