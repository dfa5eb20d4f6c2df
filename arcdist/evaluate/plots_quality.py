"""Pictures of embeddings' norms over the quality of their images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from arcdist.evaluate.plots import BLUE, MUTED, STYLE, VERMILION, WIDTH_IN
from arcdist.evaluate.quality import NormQuality


def norms_over_quality(
    path: str | Path, norms: npt.ArrayLike, qualities: npt.ArrayLike, found: Mapping[str, NormQuality]
) -> None:
    """Draw the norm of each embedding over each measure of its image, and the mean of each tenth, to a PNG.

    Args:
        norms: ``[N]``.
        qualities: ``[N, 3]``, a column a measure, as ``found`` has them.
        found: what ``norm_quality`` returns.
    """
    with matplotlib.rc_context(STYLE | {"axes.titlepad": 20, "axes.titlesize": 9.5}):
        figure = Figure(figsize=(WIDTH_IN, 3.0))
        panels = figure.subplots(1, len(found), sharey=True)
        for panel, (measure, each), values in zip(panels, found.items(), np.asarray(qualities).T):
            panel.plot(values, norms, ".", color=BLUE, markersize=2.5, alpha=0.25, markeredgewidth=0)
            panel.plot(each.measure_by_tenth, each.norm_by_tenth, color=VERMILION, marker="o", markersize=3.5)
            panel.set_title(measure.capitalize())
            note = f"rank correlation {each.spearman:.2f}"
            panel.annotate(note, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=MUTED)
        panels[0].set_ylabel("norm of the embedding")
        figure.savefig(path)
