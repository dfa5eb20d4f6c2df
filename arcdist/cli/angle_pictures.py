"""The pictures of ``arcdist evaluate RUN analysis=angles``: pairs' angles (Figure 6), and the means of Table 3."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.cli.picture_files import PictureArguments
from arcdist.errors import DataError

Cosines = tuple[np.ndarray, np.ndarray]  # of genuine and of random impostor pairs
_MEANS = {
    "W-EC": "head's center to own\nembedding center (W-EC)",
    "Intra": "image to own\nembedding center (Intra)",
    "W-Inter": "head's center to the\nnearest other (W-Inter)",
    "Inter": "embedding center to the\nnearest other (Inter)",
}


def draw_angles(asked: PictureArguments, found: Mapping[str, Any], cosines: Mapping[str, Cosines]) -> list[Path]:
    """Write ``pair_angles`` and ``mean_angles``; return the paths. A set without a kind of pair has no histogram.

    Raises DataError where they cannot be written.
    """
    from arcdist.evaluate.plots import angle_histogram  # matplotlib takes a second to import
    from arcdist.evaluate.plots_table import BarPanel, table_bars

    drawn = []
    try:
        if both := {name: pair for name, pair in cosines.items() if len(pair[0]) and len(pair[1])}:
            drawn.append(asked.picture("pair_angles"))
            angle_histogram(drawn[-1], both)
        panels = []
        for mean, title in _MEANS.items():
            degrees = {name: each["degrees"][mean] for name, each in found.items()}
            values = {name: [value] for name, value in degrees.items() if value is not None}
            if values:
                panels.append(BarPanel(title, values, {}, ours=True))
        drawn.append(asked.picture("mean_angles"))
        table_bars(
            drawn[-1], "Mean angles", "degrees; left: small is compact, right: large is apart", list(found), panels
        )
    except OSError as error:
        raise DataError(f"{error.filename or asked.pictures}: cannot be written: {error.strerror}") from None
    return drawn
