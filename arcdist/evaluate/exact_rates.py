"""TAR at very low FAR, exactly, over up to 10¹² scores.

The convention is that of ``metrics``: a pair is accepted when its score reaches the threshold, FAR may not exceed its
target, equal scores stand or fall together, and nothing is interpolated. So of ``I`` impostor pairs ``k = ⌊far·I⌋``
may be accepted, and TAR is the share of genuine pairs above the ``k+1``-th highest impostor score: an order statistic
of the impostor scores, for which only their ``k+1`` highest need to be held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.metrics import false_accepts_allowed
from arcdist.evaluate.scores import TopScores, triangle_blocks
from arcdist.runtime.collectives import gather_uneven_rows

MOST_HELD = 100_000_000  # impostor scores that an order statistic may hold, 0.4 GB in float32


@dataclass(frozen=True)
class Rates:
    """TAR by FAR, with what it stands on."""

    tar_at_far: dict[float, float]
    thresholds: dict[float, float]
    """By FAR, the impostor score that an accepted pair must exceed; −∞ where every pair may be accepted."""
    false_accepts: dict[float, int]
    """By FAR, how many impostor pairs may be accepted."""
    genuine: int
    impostor: int

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it; FARs become ``"1e-06"``, a threshold of −∞ ``null``."""
        by_far = {"tar_at_far", "thresholds", "false_accepts"}
        return {
            name: {str(far): number if number > -math.inf else None for far, number in value.items()}
            if name in by_far
            else value
            for name, value in asdict(self).items()
        }


def rates(
    genuine: npt.ArrayLike, impostor: npt.ArrayLike, fars: Sequence[float], *, of_impostors: int | None = None
) -> Rates:
    """Return TAR at each FAR, as ``metrics.tar_at_far`` does one by one, without sorting all impostor scores.

    Args:
        genuine: ``[G]`` scores, ``G ≥ 1``; −∞ for a pair that no threshold accepts.
        impostor: ``[I]`` finite scores, ``I ≥ 1``, in any order.
        fars: each in [0, 1].
        of_impostors: how many impostor pairs there were, where ``impostor`` holds the highest of them only.

    Raises DataError for scores that are none or not numbers, and where too few impostor scores were held for a FAR.
    Time: ``O(G + I)``. Memory: a copy of the scores.
    """
    genuine, impostor = _scores("genuine", genuine).astype(np.float64), _scores("impostor", impostor)
    total = len(impostor) if of_impostors is None else of_impostors
    allowed = {far: false_accepts_allowed(far, total) for far in fars}
    refused = {far: count for far, count in allowed.items() if count < total}
    if max(refused.values(), default=0) >= len(impostor):
        far = max(refused, key=refused.__getitem__)
        raise DataError(
            f"TAR at a FAR of {far:g} needs the {refused[far] + 1} highest of {total} impostor scores, "
            f"of which {len(impostor)} were given"
        )
    thresholds = dict.fromkeys(allowed, -math.inf)
    if refused:
        from_below = {far: len(impostor) - 1 - count for far, count in refused.items()}
        ordered = np.partition(impostor, sorted(set(from_below.values())))
        thresholds |= {far: float(ordered[position]) for far, position in from_below.items()}
    tar = {far: float(np.mean(genuine > threshold)) for far, threshold in thresholds.items()}
    return Rates(tar, thresholds, allowed, len(genuine), total)


def tar_at_nearest_far(
    genuine: npt.ArrayLike, impostor: npt.ArrayLike, fars: Sequence[float]
) -> dict[float, tuple[float, float]]:
    """Return, by FAR, ``(TAR, FAR)`` of the ROC's vertex of nearest FAR, as insightface's IJB scripts do.

    They take ``sklearn.metrics.roc_curve``, which drops vertices between two equal steps, and of equally near vertices
    the one of larger FAR (``ijb_11.py:350-366``). So the FAR taken may exceed its target, and the figure is optimistic;
    it is there for comparison with papers.

    Args:
        genuine: ``[G]`` finite scores, ``G ≥ 1``.
        impostor: ``[I]`` finite scores, ``I ≥ 1``, all of them.

    Time: a sort of all scores. Memory: about six times the scores.
    """
    genuine, impostor = np.sort(_scores("genuine", genuine)), np.sort(_scores("impostor", impostor))
    falling = np.unique(np.concatenate([genuine, impostor]))[::-1]
    accepted = len(genuine) - np.searchsorted(genuine, falling, side="left")
    false_accepts = len(impostor) - np.searchsorted(impostor, falling, side="left")
    if len(falling) > 2:
        turns = (np.diff(false_accepts, 2) != 0) | (np.diff(accepted, 2) != 0)
        kept = np.concatenate([[True], turns, [True]])
        accepted, false_accepts = accepted[kept], false_accepts[kept]
    far = np.append(0.0, false_accepts / len(impostor))[::-1]
    tar = np.append(0.0, accepted / len(genuine))[::-1]
    nearest = {target: int(np.argmin(np.abs(far - target))) for target in fars}
    return {target: (float(tar[vertex]), float(far[vertex])) for target, vertex in nearest.items()}


def all_to_all(embeddings: Tensor, labels: npt.ArrayLike, fars: Sequence[float] = (1e-6,)) -> Rates:
    """Return TAR at each FAR over all unordered pairs of images, on every rank: MFR's measure, on own data.

    Args:
        embeddings: ``[N, D]``, the same on every rank, rows of any length; the device that holds them does the work.
        labels: ``[N]`` integers, whose image it is.
        fars: each in [0, 1]; small ones, since ``far·N²/2`` scores are held.

    Raises DataError for embeddings that are not finite or have no direction, and lists without a genuine or without an
    impostor pair; ConfigError for a FAR that would hold more than ``MOST_HELD`` scores.

    Time: ``N²·D/W`` operations. Memory: the genuine scores, twice the held impostor scores and a few blocks. The scores
    are those of a matrix product in the embeddings' precision. Source: insightface ``challenges/mfr`` (MR-All).
    """
    labels = _labels(labels, len(embeddings))
    order = torch.from_numpy(np.argsort(labels, kind="stable"))
    ordered = torch.from_numpy(labels)[order].to(embeddings.device)
    counts = np.unique(labels, return_counts=True)[1]
    genuine_pairs = int(np.sum(counts * (counts - 1) // 2))
    impostor_pairs = len(labels) * (len(labels) - 1) // 2 - genuine_pairs
    if not genuine_pairs or not impostor_pairs:
        raise DataError(
            f"{len(labels)} images of {len(counts)} people give {genuine_pairs} genuine and {impostor_pairs} impostor "
            "pairs; both are needed"
        )
    impostor = impostor_keeper(fars, impostor_pairs, embeddings)
    genuine = [_no_scores(embeddings)]
    for rows, columns, scores in triangle_blocks(embeddings, order.to(embeddings.device)):
        row_labels, column_labels = ordered[rows], ordered[columns]
        on_diagonal = rows == columns
        if on_diagonal or row_labels[-1] == column_labels[0]:  # labels are sorted: elsewhere all pairs are impostors
            same = row_labels[:, None] == column_labels
            if on_diagonal:
                genuine.append(scores[same.triu(1)])
                scores = scores.masked_fill(same | same.new_ones(same.shape).tril(), -torch.inf)
            else:
                genuine.append(scores[same])
                scores = scores.masked_fill(same, -torch.inf)
        impostor.add(scores)
    return rates(
        gather_uneven_rows(torch.cat(genuine)).cpu().numpy(),
        impostor.highest().cpu().numpy(),
        fars,
        of_impostors=impostor_pairs,
    )


def impostor_keeper(fars: Sequence[float], impostor_pairs: int, embeddings: Tensor) -> TopScores:
    """Return a keeper of the impostor scores that decide TAR at these FARs, for scores of such embeddings.

    Raises ConfigError for a FAR that would hold more than ``MOST_HELD`` scores.
    """
    worst = max(fars, default=0.0)
    held = min(false_accepts_allowed(worst, impostor_pairs) + 1, impostor_pairs)
    if held > MOST_HELD:
        raise ConfigError(
            f"far: {worst:g}: of {impostor_pairs} impostor pairs the {held} highest would be held, more than "
            f"{MOST_HELD}; ask for a FAR of at most {MOST_HELD / impostor_pairs:.1g}, or give fewer images"
        )
    return TopScores(held, _no_scores(embeddings))


def _no_scores(embeddings: Tensor) -> Tensor:
    """Return ``[0]``, in the dtype that scores of these embeddings have."""
    return embeddings.new_empty(0, dtype=torch.promote_types(embeddings.dtype, torch.float32))


def _labels(labels: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels: {labels.dtype} of shape {labels.shape}: {count} integers are needed, one an embedding"
        )
    return labels.astype(np.int64)


def _scores(kind: str, scores: npt.ArrayLike) -> npt.NDArray[Any]:
    scores = np.asarray(scores)
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"{kind} scores: shape {scores.shape}: at least one {kind} pair is needed, one score each")
    bad = np.flatnonzero(np.isnan(scores) | (scores == np.inf))
    if len(bad):
        raise DataError(
            f"{kind} scores: {len(bad)} of {len(scores)} are no scores; the first is number {bad[0]}: {scores[bad[0]]}"
        )
    return scores
