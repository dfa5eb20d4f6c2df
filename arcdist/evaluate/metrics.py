"""Measures of a verifier, from the scores of genuine and of impostor pairs.

One convention holds for all of them. A score is the higher the more alike; a pair is accepted when its score reaches
the threshold; FAR is the share of accepted impostor pairs, TAR that of accepted genuine pairs. Pairs of equal score
are accepted or refused together, so no measure depends on how a sort orders ties.

Each costs one sort: ``O(n log n)`` time, ``O(n)`` memory.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from arcdist.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]


def roc(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return ``(far, tar, thresholds)``, the exact ROC: one point for each distinct score, thresholds falling.

    The first point is (0, 0) at threshold ``inf``, the last one (1, 1) at the lowest score.

    Args:
        genuine: ``[G]`` finite scores, ``G ≥ 1``.
        impostor: ``[I]`` finite scores, ``I ≥ 1``.
    """
    genuine, impostor = _sorted_scores(genuine, impostor)
    scores = np.unique(np.concatenate([genuine, impostor]))[::-1]
    far = (len(impostor) - np.searchsorted(impostor, scores, side="left")) / len(impostor)
    tar = (len(genuine) - np.searchsorted(genuine, scores, side="left")) / len(genuine)
    return np.append(0.0, far), np.append(0.0, tar), np.append(np.inf, scores)


def false_accepts_allowed(far: float, impostor: int) -> int:
    """Return how many of ``impostor`` pairs may be accepted: the largest k with ``k / impostor ≤ far``.

    Raises ConfigError for a FAR outside of [0, 1].
    """
    if not 0.0 <= far <= 1.0:
        raise ConfigError(f"far: {far}: must be in [0, 1]")
    allowed = math.ceil(far * impostor)
    return allowed - (allowed / impostor > far)  # asked of the quotient: 0.29·100 is 28.999…, yet 29 of 100 are 0.29


def tar_at_far(genuine: npt.ArrayLike, impostor: npt.ArrayLike, far: float) -> float:
    """Return the largest TAR of any threshold whose FAR is at most ``far``.

    Exact, by an order statistic and without interpolation: of ``I`` impostor pairs ``k = ⌊far·I⌋`` may be accepted,
    so what is accepted lies above the ``k+1``-th highest of them. With ``far < 1/I`` no false accept is allowed.

    Args:
        genuine: ``[G]`` finite scores, ``G ≥ 1``.
        impostor: ``[I]`` finite scores, ``I ≥ 1``.
        far: in [0, 1].
    """
    genuine, impostor = _sorted_scores(genuine, impostor)
    allowed = false_accepts_allowed(far, len(impostor))
    if allowed == len(impostor):
        return 1.0
    highest_refused = impostor[len(impostor) - 1 - allowed]
    refused = np.searchsorted(genuine, highest_refused, side="right")
    return float(len(genuine) - refused) / len(genuine)


def eer(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> float:
    """Return the equal error rate: FAR where FAR = 1 − TAR, on the ROC's points joined by straight lines.

    Where a point of the ROC has both errors equal (always so without ties and with ``G = I``), it is that point.

    Args:
        genuine: ``[G]`` finite scores, ``G ≥ 1``.
        impostor: ``[I]`` finite scores, ``I ≥ 1``.
    """
    far, tar, _ = roc(genuine, impostor)
    excess = far - (1.0 - tar)  # rises strictly from −1 to 1, so the crossing is one point
    return float(np.interp(0.0, excess, far))


def auc(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> float:
    """Return the area under the ROC: the chance that a genuine pair outscores an impostor pair, ties counting half.

    Exact: the Mann-Whitney statistic, counted in integers.

    Args:
        genuine: ``[G]`` finite scores, ``G ≥ 1``.
        impostor: ``[I]`` finite scores, ``I ≥ 1``.
    """
    genuine, impostor = _sorted_scores(genuine, impostor)
    below = np.searchsorted(impostor, genuine, side="left").sum()
    not_above = np.searchsorted(impostor, genuine, side="right").sum()
    return int(below + not_above) / (2 * len(genuine) * len(impostor))


def _sorted_scores(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[Floats, Floats]:
    return _sorted("genuine", genuine), _sorted("impostor", impostor)


def _sorted(kind: str, scores: npt.ArrayLike) -> Floats:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise DataError(f"{kind} scores: shape {scores.shape}: at least one {kind} pair is needed, one score each")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(
            f"{kind} scores: {len(bad)} of {len(scores)} are not finite; the first is number {bad[0]}: {scores[bad[0]]}"
        )
    return np.sort(scores)
