"""Pictures of what a run records while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from arcdist.evaluate.plots import BLUE, MUTED, STYLE, WIDTH_IN


def angle_history(path: str | Path, steps: Sequence[int], theta_rad: Mapping[float, Sequence[float]]) -> None:
    """Draw the distribution of the angle to the own center over optimizer steps, in degrees, to a PNG.

    Args:
        steps: ``[N]``, rising.
        theta_rad: by quantile, ``[N]``: pairs of quantiles make a band, the one in the middle is a line.
    """
    quantiles = sorted(theta_rad)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.8))
        axes = figure.subplots()
        for inward, (low, high) in enumerate(zip(quantiles[: len(quantiles) // 2], reversed(quantiles))):
            below, above = (np.degrees(theta_rad[edge]) for edge in (low, high))
            label = f"{100 * low:g} to {100 * high:g} % of the images"
            axes.fill_between(steps, below, above, color=BLUE, alpha=0.15 + 0.25 * inward, linewidth=0, label=label)
        axes.plot(steps, np.degrees(theta_rad[quantiles[len(quantiles) // 2]]), color=BLUE, label="median")
        axes.set_title("Angle to the own center")
        note = "of the embeddings of a step, while it was trained on"
        axes.annotate(note, (0, 1), (0, 10), xycoords="axes fraction", textcoords="offset points", color=MUTED)
        axes.yaxis.set_major_formatter("{x:.0f}°")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("step")
        axes.margins(x=0)
        axes.legend(loc="upper right")
        figure.savefig(path)
