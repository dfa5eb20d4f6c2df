"""The mean of each identity's embeddings, in which what does not fit counts little, and how well each image fits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.errors import DataError
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

_ROUNDS = 3
CENTER_PASSES = 2 * _ROUNDS + 2
"""How often `robust_centers` looks at every embedding."""
_LEAST_SUPPORT = 0.02  # so that an identity of which no two images fit has a mean all the same


@dataclass(frozen=True, eq=False)
class Faces:
    """The embeddings of a set, of which each rank works on its part, block by block.

    Args:
        embeddings: ``[N, D]`` float32, of any lengths but 0; the same on every rank, so better a mapped file.
        device: where the products are made.
        block: rows, and centers, that are on the device at once.
        progress: called with the number of this rank's rows that were just looked at in a pass over them.
    """

    embeddings: np.ndarray
    device: torch.device
    block: int = 8192
    progress: Callable[[int], None] = lambda rows: None

    @property
    def rows(self) -> range:
        """This rank's rows."""
        return shard_rows(len(self.embeddings), collectives.rank(), collectives.world_size())

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield this rank's unit embeddings, ``[b, D]``, and which of its rows they are.

        Errors: DataError, on the rank that meets it, for an embedding that has no direction.
        """
        for start in range(0, len(self.rows), self.block):
            part = slice(start, min(start + self.block, len(self.rows)))
            rows = self.embeddings[self.rows.start + part.start : self.rows.start + part.stop]
            unit = F.normalize(torch.from_numpy(np.array(rows, np.float32)).to(self.device))
            broken = ~((unit * unit).sum(1) > 0.5)  # NaN too
            if broken.any():
                row = self.rows.start + part.start + int(broken.int().argmax())
                raise DataError(f"embedding {row} is zero or not finite, and so has no direction")
            yield part, unit
            self.progress(len(unit))


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
