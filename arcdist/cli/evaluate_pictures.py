"""The pictures of ``arcdist evaluate``: angles, ROC, DET, and the pairs that a network judges worst."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from arcdist.data.evalsets import PairSet
from arcdist.errors import DataError
from arcdist.evaluate.report import draw
from arcdist.evaluate.sets import Scored
from arcdist.prepare.sheet import GREEN, RED, captioned_rows, tile

_COLUMNS = 2


def draw_scores(
    folder: str | Path, scores: Mapping[str, Scored], sets: Mapping[str, PairSet], hardest: int, ending: str = "png"
) -> list[Path]:
    """Write ``angles.png``, ``roc.png``, ``det.png`` and, of each set, a sheet of its hardest pairs; return the paths.

    Args:
        ending: png or svg, of all but the sheets, which are PNGs.
        sets: those of ``scores`` whose images are at hand.
        hardest: genuine pairs of lowest cosine, and as many impostor pairs of the highest, on a set's sheets.

    Raises DataError where the folder cannot be written.
    """
    from arcdist.evaluate import plots  # matplotlib takes a second to import

    cosines = {name: scored.cosines for name, scored in scores.items()}
    results = {name: scored.result for name, scored in scores.items()}
    drawn = draw(folder, cosines=cosines, results=results, ending=ending)
    drawn.append(Path(folder) / f"det.{ending}")
    plots.det_curve(drawn[-1], cosines)
    for name, pairs in sets.items() if hardest else ():
        for kind, sheet in _hardest(pairs, scores[name], hardest).items():
            drawn.append(Path(folder) / f"{name}_hardest_{kind}.png")
            if not cv2.imwrite(str(drawn[-1]), sheet[:, :, ::-1]):
                raise DataError(f"{drawn[-1]}: cannot be written")
    return drawn


def _hardest(pairs: PairSet, scored: Scored, count: int) -> dict[str, np.ndarray]:
    """Return a sheet of either kind of pairs, the worst first; those that are decided rightly are framed green."""
    threshold = 1 - float(np.mean(scored.result.thresholds)) / 2
    sheets = {}
    for kind, same, cosines in (("genuine", True, scored.cosines[0]), ("impostor", False, scored.cosines[1])):
        numbers = np.flatnonzero(pairs.same == same)
        rows = []
        for at in np.argsort(cosines if same else -cosines, kind="stable")[:count].tolist():
            pair, cosine = int(numbers[at]), float(cosines[at])
            frame = GREEN if (cosine > threshold) == same else RED
            images = pairs.images[2 * pair : 2 * pair + 2]
            words = [f"pair {pair}", f"cosine {cosine:.3f}", f"{np.degrees(np.arccos(np.clip(cosine, -1, 1))):.1f} deg"]
            rows.append((words, [tile(image, f"pair {pair}", frame) for image in images]))
        sheets[kind] = _in_columns([captioned_rows([row]) for row in rows])
    return sheets


def _in_columns(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of one size beside and below one another, the first ones in the first column."""
    height = -(-len(rows) // _COLUMNS)
    rows += [np.full_like(rows[0], 255)] * (height * _COLUMNS - len(rows))
    return np.hstack([np.vstack(rows[start : start + height]) for start in range(0, len(rows), height)])
