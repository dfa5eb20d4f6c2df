"""Pictures of a run: its loss, the angles between faces, its ROC. The only file that imports matplotlib.

Figures are made without pyplot, so that no window system, backend or global state of the caller is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from arcdist.evaluate import metrics

Floats = npt.NDArray[np.float64]
Cosines = tuple[Floats, Floats]  # of genuine and of impostor pairs

# Okabe and Ito's colors, which stay apart for every kind of color vision.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#E4E4E4"

WIDTH_IN = 7.0
STYLE: Any = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.15,
    "figure.constrained_layout.h_pad": 0.12,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 24,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 4):g}%")


def loss_curve(
    path: str | Path,
    steps: Sequence[int],
    loss: Sequence[float],
    accuracies: Mapping[str, tuple[Sequence[int], Sequence[float]]] | None = None,
    changes: Mapping[int, str] | None = None,
) -> None:
    """Draw the loss over optimizer steps, each value faint and their running mean strong, to a PNG.

    Args:
        steps: ``[N]``, rising.
        loss: ``[N]``; values that are not finite are left out.
        accuracies: by evaluation set, steps and accuracies in [0, 1]: a second panel below.
        changes: by step, what changed there, so that a jump of the loss has its reason beside it.
    """
    accuracies = accuracies or {}
    step, value = np.asarray(steps), np.asarray(loss, dtype=np.float64)
    half_window = max(1, len(value) // 100)
    mean = _running_mean(value, half_window)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 5.6 if accuracies else 3.8))
        heights = [3, 2] if accuracies else [1]
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]

        panels[0].plot(step, value, color=BLUE, alpha=0.25, linewidth=0.7)
        panels[0].plot(step, mean, color=BLUE)
        _head(panels[0], "Training loss", f"each logged value, and the mean of the {2 * half_window + 1} around it")
        last = np.flatnonzero(np.isfinite(mean))[-1:]
        _label_ends(panels[0], [(step[i], mean[i], f"{mean[i]:.2f}", BLUE) for i in last])
        for at, what in (changes or {}).items():
            panels[0].axvline(at, color=MUTED, linewidth=0.8, linestyle=":")
            panels[0].annotate(
                what, (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -10), textcoords="offset points",
                color=MUTED, fontsize="small",
            )  # fmt: skip
        if accuracies:
            for color, (at, accuracy) in zip(cycle(SERIES), accuracies.values()):
                panels[1].plot(at, accuracy, color=color, marker="o", markersize=3.5)
            ends = [(at[-1], accuracy[-1], f"{name} {accuracy[-1]:.2%}") for name, (at, accuracy) in accuracies.items()]
            _label_ends(panels[1], [(*end, color) for end, color in zip(ends, cycle(SERIES))])
            _head(panels[1], "Verification accuracy", "on each evaluation set, during training")
            panels[1].yaxis.set_major_formatter(PERCENT)
        panels[-1].set_xlabel("step")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        panels[-1].xaxis.set_major_formatter("{x:,.0f}")
        figure.savefig(path)


def angle_histogram(
    path: str | Path, sets: Mapping[str, Cosines], threshold_cosines: Mapping[str, float] | None = None
) -> None:
    """Draw how far apart, in degrees, the two faces of genuine and of impostor pairs lie, to a PNG.

    Args:
        sets: by name, the cosines of genuine and of impostor pairs; a panel each.
        threshold_cosines: by name, the cosine from which a pair is accepted.
    """
    angles = {name: (_degrees(genuine), _degrees(impostor)) for name, (genuine, impostor) in sets.items()}
    nearest = min(np.min(angle) for pair in angles.values() for angle in pair)
    farthest = max(np.max(angle) for pair in angles.values() for angle in pair)
    bins = np.arange(10 * (nearest // 10), 10 * (farthest // 10 + 1) + 1, 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.5 + 3.2 * len(sets)))
        panels = figure.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (name, (genuine, impostor)) in zip(panels, angles.items()):
            shares = [np.histogram(angle, bins)[0] / len(angle) for angle in (genuine, impostor)]
            # Labels grow away from each other, so that they do not meet; genuine pairs are mostly the nearer ones.
            side = -1 if shares[0].argmax() <= shares[1].argmax() else 1
            kinds = (("genuine", genuine, BLUE, side), ("impostor", impostor, VERMILION, -side))
            for (kind, angle, color, away), share in zip(kinds, shares):
                panel.stairs(share, bins, fill=True, color=color, alpha=0.3)
                panel.stairs(share, bins, color=color, linewidth=1.4)
                panel.annotate(
                    f"{len(angle):,} {kind}\nmean {angle.mean():.1f}°",
                    (bins[share.argmax()] + 1, share.max()),
                    (3 * away, 5),
                    textcoords="offset points",
                    color=color,
                    ha="right" if away < 0 else "left",
                    va="bottom",
                )
            panel.margins(y=0.4)
            if threshold_cosines and name in threshold_cosines:
                threshold = float(_degrees(threshold_cosines[name]))
                panel.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
                place = {"xycoords": panel.get_xaxis_transform(), "textcoords": "offset points"}
                panel.annotate(f"threshold {threshold:.1f}°", (threshold, 1), (5, 0), va="top", **place)
            _head(panel, f"Angles: {name}", "angle between the two faces of a pair, share of pairs in each 2°")
            panel.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
            panel.yaxis.set_major_formatter(PERCENT)
        panels[-1].set_xlim(bins[0], bins[-1])
        panels[-1].xaxis.set_major_formatter("{x:.0f}°")
        figure.savefig(path)


def roc_curve(path: str | Path, sets: Mapping[str, Cosines]) -> None:
    """Draw TAR over FAR to a PNG, FAR on a log axis from the decade of a single false accept on, each decade marked.

    Args:
        sets: by name, the scores of genuine and of impostor pairs, the higher the more alike; a curve each.
    """
    decade = max(1, *(math.ceil(math.log10(len(impostor))) for _, impostor in sets.values()))
    lowest_tar = 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.2))
        axes = figure.subplots()
        marks = [10.0**-power for power in range(1, decade + 1)]
        for color, (name, (genuine, impostor)) in zip(cycle(SERIES), sets.items()):
            far, tar, _ = metrics.roc(genuine, impostor)
            without = tar[far == 0][-1]  # TAR without any false accept, which a log axis has no place for
            far, tar = np.append(10.0**-decade, far[far > 0]), np.append(without, tar[far > 0])
            axes.plot(far, tar, color=color, drawstyle="steps-post", label=name)
            lowest_tar = min(lowest_tar, without)
            reached = [metrics.tar_at_far(genuine, impostor, mark) for mark in marks]
            axes.plot(marks, reached, "o", color=color, markersize=6, markeredgecolor="white", clip_on=False, zorder=3)
            for mark, share in zip(marks, reached) if len(sets) == 1 else ():
                axes.annotate(f"{share:.2%}", (mark, share), (6, -5), textcoords="offset points", va="top")
        axes.set_xscale("log")
        axes.set_xlim(10.0**-decade, 1)
        span = max(1 - lowest_tar, 0.001)
        axes.set_ylim(1 - 1.2 * span, 1 + 0.03 * span)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda far, _: f"1e{round(np.log10(far))}" if far < 1 else "1"))
        axes.yaxis.set_major_formatter(PERCENT)
        _head(axes, f"ROC: {next(iter(sets))}" if len(sets) == 1 else "ROC", "true accept rate over false accept rate")
        axes.set_xlabel("false accept rate")
        if len(sets) > 1:
            axes.legend(loc="lower right")
        figure.savefig(path)


def det_curve(path: str | Path, sets: Mapping[str, Cosines]) -> None:
    """Draw the rate of false rejects over that of false accepts to a PNG, both on log axes: the DET.

    The lowest decades are those of a single pair; where no pair errs, the curve ends at the axis. The dot is the EER.

    Args:
        sets: by name, the scores of genuine and of impostor pairs, the higher the more alike; a curve each.
    """
    lowest = [10.0 ** -math.ceil(math.log10(max(len(pair[kind]) for pair in sets.values()))) for kind in (1, 0)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.6))
        axes = figure.subplots()
        for color, (name, (genuine, impostor)) in zip(cycle(SERIES), sets.items()):
            far, tar, _ = metrics.roc(genuine, impostor)
            axes.plot(far.clip(lowest[0]), (1 - tar).clip(lowest[1]), color=color, drawstyle="steps-post", label=name)
            eer = metrics.eer(genuine, impostor)
            if eer > max(lowest):
                axes.plot(eer, eer, "o", color=color, markersize=6, markeredgecolor="white", zorder=3)
                label = axes.annotate(f"EER {eer:.2%}", (eer, eer), (9, 8), textcoords="offset points", color=color)
                label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        axes.plot([max(lowest), 1], [max(lowest), 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set(xscale="log", yscale="log", xlim=(lowest[0], 1), ylim=(lowest[1], 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{round(100 * rate, 6):g}%"))
        _head(axes, "DET", "false reject rate over false accept rate")
        axes.set_xlabel("false accept rate")
        axes.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="white")
        figure.savefig(path)


def cost_over_classes(path: str | Path, lines: Mapping[str, Sequence[tuple[int, float, float]]], note: str) -> None:
    """Draw a head's time for a step and its transient memory over the number of classes, on log axes, to a PNG.

    Args:
        lines: by implementation, points (classes, seconds, MiB); those called ``ours…`` in color, others gray.
        note: what they have in common.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 7.4))
        panels = figure.subplots(2, 1, sharex=True)
        colors, our_markers, their_markers = cycle(SERIES), cycle("os^vDPX"), cycle("os^vDPX")
        for name, points in lines.items():
            classes, seconds, mib = zip(*sorted(points))
            if name.startswith("ours"):
                line: Any = {"color": next(colors), "marker": next(our_markers)}
            else:
                line = {"color": MUTED, "marker": next(their_markers), "linestyle": (0, (4, 2)), "linewidth": 1}
            for panel, values in zip(panels, (seconds, mib)):
                panel.plot(classes, values, markersize=4.5, label=_words(name), **line)
        for panel, unit in zip(panels, ("{x:g} s", "{x:,g} MiB")):
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(unit)
            panel.yaxis.set_minor_locator(NullLocator())
        _head(panels[0], "Time of a step: forward, backward, update", note)
        _head(panels[1], "Transient memory", "the peak, less centers and momentum")
        known = sorted({point[0] for points in lines.values() for point in points})
        panels[1].set_xticks(known, [f"{classes:,}" for classes in known])
        panels[1].xaxis.set_minor_locator(NullLocator())
        panels[1].set_xlabel("classes")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _degrees(cosine: npt.ArrayLike) -> Floats:
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _running_mean(values: Floats, half_window: int) -> Floats:
    """Return ``[N]``: the mean of the finite values at most ``half_window`` places away, NaN where there is none."""
    finite = np.isfinite(values)
    total = np.append(0.0, np.cumsum(np.where(finite, values, 0.0)))
    count = np.append(0, np.cumsum(finite))
    place = np.arange(len(values))
    first, last = np.maximum(place - half_window, 0), np.minimum(place + half_window + 1, len(values))
    inside = count[last] - count[first]
    return np.where(inside > 0, (total[last] - total[first]) / np.maximum(inside, 1), np.nan)


def _head(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title)
    axes.annotate(note, (0, 1), (0, 10), xycoords="axes fraction", textcoords="offset points", color=MUTED)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write ``(x, y, text, color)`` to the right of the ends of lines, lower where labels would overlap."""
    low, high = axes.get_ylim()
    line_height = 12 / 72 * axes.figure.dpi / axes.bbox.height * (high - low)  # 12 pt
    highest = np.inf
    for x, y, text, color in sorted(ends, key=lambda end: -end[1]):
        highest = min(y, highest - line_height)
        axes.annotate(
            text,
            (x, highest),
            (8, 0),
            textcoords="offset points",
            annotation_clip=False,
            color=color,
            va="center",
            weight="bold",
        )
