"""The angles of a trained model, as Table 3 of the ArcFace paper (arXiv:1801.07698) tells them, on all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.errors import DataError
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

_BLOCK = 4096  # rows of a rank that travel, and are scored, at once


@dataclass(frozen=True)
class AngleStatistics:
    """Means of angles in radians. An embedding center is the direction of the mean of a class's unit embeddings."""

    intra_rad: float
    """Of an image to the embedding center of its class, over all images."""
    inter_rad: float | None
    """Of an embedding center to the nearest other one, over the classes that have images; None where one class has."""
    w_ec_rad: float | None
    """Of a class's center in the head to its embedding center, over the classes that have images."""
    w_inter_rad: float | None
    """Of a center in the head to the nearest other one, over all classes."""
    images: int
    classes: int
    """Those that have images."""

    def degrees(self) -> dict[str, float | None]:
        """Return the four means in degrees, by the paper's names."""
        means = {"W-EC": self.w_ec_rad, "W-Inter": self.w_inter_rad, "Intra": self.intra_rad, "Inter": self.inter_rad}
        return {name: None if mean is None else math.degrees(mean) for name, mean in means.items()}


def angle_statistics(
    embeddings: Tensor, labels: Tensor, num_classes: int, centers: Tensor | None = None, block: int = _BLOCK
) -> AngleStatistics:
    """Return the statistics over the images of all ranks, the same on every rank.

    Args:
        embeddings: this rank's part ``[n, D]``, of any lengths but 0; ``n`` may differ from rank to rank and be 0.
        labels: ``[n]`` int64, in [0, C).
        num_classes: ``C``. Each rank sums up the classes that ``shard_rows`` gives it.
        centers: this rank's rows of the head ``[S, D]``, as ``shard_rows`` gives them; None: a set without a head.
        block: rows of each rank that travel at once.

    Memory: ``[S, D]`` sums a rank, and ``block · W·block`` cosines.
    Communication: the embeddings twice, the embedding centers and the centers once, block by block.
    Cost: ``C² · D`` products over all ranks for each of ``W-Inter`` and ``Inter``.
    Raises DataError where there is no image, or an embedding has no direction.
    """
    mine = shard_rows(num_classes, collectives.rank(), collectives.world_size())
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    unit = F.normalize(embeddings.to(dtype))
    broken = ~((unit * unit).sum(1) > 0.5)  # NaN too
    if collectives.all_reduce_sum(broken.sum()) > 0:
        raise DataError("an embedding is zero or not finite, and so has no direction")
    sums = unit.new_zeros(len(mine), unit.shape[1])
    counts = torch.zeros(len(mine), dtype=torch.int64, device=unit.device)
    for rows, row_labels in _rounds(unit, labels, block):
        own, target = _own(row_labels, mine)
        sums.index_add_(0, target, rows[own])
        counts += torch.bincount(target, minlength=len(mine))
    embedding_centers = F.normalize(sums)
    images = collectives.all_reduce_sum(counts.sum())
    if images == 0:
        raise DataError("there is no image, and so no angle")

    intra = unit.new_zeros((), dtype=torch.float64)
    for rows, row_labels in _rounds(unit, labels, block):
        own, target = _own(row_labels, mine)
        intra += _angles((rows[own] * embedding_centers[target]).sum(1)).sum()

    held = counts.nonzero()[:, 0]
    inter = _mean_nearest(embedding_centers[held], held + mine.start, block)
    w_ec = w_inter = None
    if centers is not None:
        own_centers = F.normalize(centers.to(dtype))
        w_ec = _mean(_angles((own_centers[held] * embedding_centers[held]).sum(1)))
        w_inter = _mean_nearest(own_centers, torch.arange(mine.start, mine.stop, device=unit.device), block)
    return AngleStatistics(
        intra_rad=float(collectives.all_reduce_sum(intra) / images),
        inter_rad=inter,
        w_ec_rad=w_ec,
        w_inter_rad=w_inter,
        images=int(images),
        classes=int(collectives.all_reduce_sum(counts.count_nonzero())),
    )


def _rounds(rows: Tensor, ids: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows and ids of all ranks, ``block`` of each at a time, on every rank."""
    longest = int(collectives.all_reduce_max(torch.tensor(len(rows), device=rows.device)))
    for start in range(0, longest, block):
        part = slice(start, start + block)
        yield collectives.gather_uneven_rows(rows[part]), collectives.gather_uneven_rows(ids[part])


def _own(labels: Tensor, mine: range) -> tuple[Tensor, Tensor]:
    """Return which labels are of this rank's classes, and their rows among them."""
    own = (labels >= mine.start) & (labels < mine.stop)
    return own, labels[own] - mine.start


def _mean_nearest(unit: Tensor, ids: Tensor, block: int) -> float | None:
    """Return the mean over the rows of all ranks of the angle to the nearest other row; None where there is one."""
    nearest = unit.new_full((len(unit),), -math.inf)
    for others, other_ids in _rounds(unit, ids, block):
        for start in range(0, len(unit), block):
            part = slice(start, start + block)
            cosine = unit[part] @ others.T
            cosine.masked_fill_(ids[part, None] == other_ids, -math.inf)
            nearest[part] = torch.maximum(nearest[part], cosine.amax(1))
    return _mean(_angles(nearest[nearest > -math.inf]))


def _mean(values: Tensor) -> float | None:
    """Return the mean over all ranks, None where there is no value."""
    total = torch.stack([values.sum(), values.new_tensor(len(values))])
    total = collectives.all_reduce_sum(total)
    return float(total[0] / total[1]) if total[1] else None


def _angles(cosine: Tensor) -> Tensor:
    return cosine.double().clamp(-1, 1).arccos()
