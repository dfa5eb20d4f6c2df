"""The mean of each identity's embeddings, in which what does not fit counts little, and how well each image fits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arcdist.prepare.faces import Faces
from arcdist.runtime import collectives

_ROUNDS = 3
CENTER_PASSES = 2 * _ROUNDS + 2
"""How often `robust_centers` looks at every embedding."""
_LEAST_SUPPORT = 0.02  # so that an identity of which no two images fit has a mean all the same


@dataclass(frozen=True, eq=False)
class RobustCenters:
    """What `robust_centers` returns."""

    means: Tensor
    """``[C, D]``: the weighted mean of an identity's unit embeddings, not normalised, 0 without an image. So the cosine
    of a face to the mean of other images of its person is expected to be the same for any number of these."""
    own: Tensor
    """``[n]``, of this rank's rows: the mean cosine to the identity's other images, by their weights; NaN for the only
    one."""


def robust_centers(faces: Faces, labels: Tensor, num_classes: int, left_out: "Tensor | None" = None) -> RobustCenters:
    """Return the means over the images of all ranks and the support of this rank's.

    An image's weight is the square of its support, the mean cosine to its identity's other images by their weights,
    found anew in three rounds that begin with equal weights; so a wrong image loses its vote where others agree.

    Args:
        faces: all embeddings.
        labels: ``[n]`` int64, of this rank's rows.
        num_classes: ``C``.
        left_out: bool ``[n]``: images without a weight, which have a support all the same.

    Memory: five times ``[C, D]`` on each rank. Communication: two all-reduces of that size a round.
    """
    weights = torch.ones(len(labels), device=faces.device)
    if left_out is not None:
        weights[left_out] = 0
    votes = weights > 0
    sums = _sums(faces, labels, num_classes, weights)
    for _ in range(_ROUNDS):
        support = _support(faces, labels, weights, sums)
        weights = support.nan_to_num(1.0).clamp_min(_LEAST_SUPPORT).square() * votes
        sums = _sums(faces, labels, num_classes, weights)
    own = _support(faces, labels, weights, sums)
    return RobustCenters(sums.rows / sums.weights.clamp_min(1e-12)[:, None], own)


@dataclass(frozen=True, eq=False)
class _Sums:
    rows: Tensor
    weights: Tensor
    votes: Tensor


def _sums(faces: Faces, labels: Tensor, num_classes: int, weights: Tensor) -> _Sums:
    rows = torch.zeros(num_classes, faces.embeddings.shape[1], device=faces.device)
    for part, unit in faces.blocks():
        rows.index_add_(0, labels[part], unit * weights[part, None])
    totals = torch.zeros(num_classes, device=faces.device).index_add_(0, labels, weights)
    votes = torch.bincount(labels[weights > 0], minlength=num_classes)
    return _Sums(*(collectives.all_reduce_sum(total) for total in (rows, totals, votes)))


def _support(faces: Faces, labels: Tensor, weights: Tensor, sums: _Sums) -> Tensor:
    """Return ``[n]``: the weighted mean cosine to the other images of the identity, NaN where there is none."""
    support = torch.empty(len(labels), device=faces.device)
    for part, unit in faces.blocks():
        label, weight = labels[part], weights[part]
        others = sums.rows[label] - unit * weight[:, None]
        cosine = (others * unit).sum(1) / (sums.weights[label] - weight).clamp_min(1e-12)
        support[part] = cosine.masked_fill(sums.votes[label] - (weight > 0).long() == 0, torch.nan)
    return support
