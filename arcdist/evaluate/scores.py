"""Cosines of many embeddings with many, block by block, and the keepers of what is asked of them.

The score matrix of a protocol has 10⁸ to 10¹² entries, so it is never held: blocks of it stream past, and a keeper
holds the exact answer for what has gone by. The blocks are the same on any number of ranks, so the answer is too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from arcdist.errors import DataError
from arcdist.runtime.collectives import gather_uneven_rows, rank, world_size

BLOCK = 2048  # rows and columns of a block: 16 MiB of float32, and a product large enough for full speed
_STRIP = 4  # blocks of rows that meet a block of columns before the next is brought to length 1


class ScoreBlock(NamedTuple):
    """A part of a score matrix: ``scores[i, j]`` is of row ``rows[i]`` and column ``columns[j]``."""

    rows: slice
    columns: slice
    scores: Tensor


def unit_rows(embeddings: Tensor, name: str, first_row: int = 0) -> Tensor:
    """Return the rows at length 1, ``[N, D]``, in float32 or wider.

    Raises DataError for a row that is not finite or has no direction; ``name`` and ``first_row`` say which.
    """
    embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    norm = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
    bad = (~(norm.isfinite() & (norm > 0))).flatten().nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{name}: {len(bad)} of rows {first_row} to {first_row + len(norm) - 1} are not finite or have no "
            f"direction; the first is row {first_row + row}, with norm {norm[row, 0]:g}"
        )
    return embeddings / norm


def matrix_blocks(probes: Tensor, gallery: Tensor, chosen: Tensor | None = None) -> Iterator[ScoreBlock]:
    """Yield this rank's blocks of the cosines of every probe with every row of the gallery.

    Args:
        probes: ``[P, D]``, rows of any length.
        gallery: ``[G, D]``, rows of any length and any float dtype, memory-mapped where it is large; its blocks are
            brought to the probes' device one by one.
        chosen: ``[n]`` int64, rows of the gallery: column i is of ``gallery[chosen[i]]``; None for all, as they are.

    Memory: a unit copy of the probes, a block of the gallery and a block of scores. Time: ``2·P·G·D/W`` operations.
    """
    _require_matrices(probes, gallery)
    probes = unit_rows(probes, "probes")
    for columns in list(_slices(len(gallery if chosen is None else chosen)))[rank() :: world_size()]:
        others = gallery[columns if chosen is None else chosen[columns]].to(probes.device)
        others = unit_rows(others, "gallery", columns.start).to(probes.dtype)
        for rows in _slices(len(probes)):
            yield ScoreBlock(rows, columns, probes[rows] @ others.T)


def triangle_blocks(embeddings: Tensor, order: Tensor) -> Iterator[ScoreBlock]:
    """Yield this rank's blocks of the cosines of every row with every other: those on the diagonal and above it.

    Args:
        embeddings: ``[N, D]``, rows of any length.
        order: ``[N]`` int64, a permutation: row and column i of the matrix are of ``embeddings[order[i]]``.

    Memory: six blocks of embeddings and a block of scores. Time: ``N²·D/W`` operations.
    """
    _require_matrices(embeddings, embeddings)
    slices = list(_slices(len(embeddings)))

    # Rows that ``order`` picks are numbered anew, so an error counts them in that order.
    @lru_cache(_STRIP + 2)  # a strip's rows, and two blocks of columns, of which the older one goes first
    def unit(number: int) -> Tensor:
        part = slices[number]
        return unit_rows(embeddings[order[part]], "embeddings in the order of labels", part.start)

    pairs = [(first, second) for first in range(len(slices)) for second in range(first, len(slices))]
    pairs.sort(key=lambda pair: (pair[0] // _STRIP, pair[1]))
    for first, second in pairs[rank() :: world_size()]:
        yield ScoreBlock(slices[first], slices[second], unit(first) @ unit(second).T)


class TopScores:
    """The ``count`` highest of a stream of scores, exactly; equal scores count as often as they occur.

    Memory: ``2·count`` scores and a block. Time: one comparison a score, once the first blocks have gone by.
    """

    def __init__(self, count: int, like: Tensor) -> None:
        self.count = count
        self._floor = -torch.inf  # what does not exceed it changes nothing
        self._kept = [like.new_empty(0)]
        self._held = 0

    def add(self, scores: Tensor) -> None:
        """Take in a block of scores, ``[r, c]``; −∞ stands for no score."""
        # After a while few rows hold anything of interest, and a row's maximum is found faster than its high scores.
        rows = scores[scores.amax(1) > self._floor]
        above = rows[rows > self._floor]
        self._kept.append(above)
        self._held += len(above)
        if self._held >= 2 * self.count:
            self._kept = [_highest(torch.cat(self._kept), self.count)]
            self._held = self.count
            self._floor = float(self._kept[0].min())

    def highest(self) -> Tensor:
        """Return the scores that were kept by all ranks, falling: ``count`` of them, or all where there were fewer.

        Communication: one gather of at most ``count`` scores a rank.
        """
        mine = _highest(torch.cat(self._kept), self.count)
        return _highest(gather_uneven_rows(mine), self.count).sort(descending=True).values


class NearestRows:
    """The ``count`` columns of highest score for each row of a score matrix, while its blocks stream past.

    Memory: ``rows·count`` scores and column numbers.
    """

    def __init__(self, rows: int, count: int, like: Tensor) -> None:
        self._scores = torch.full((rows, count), -torch.inf, device=like.device, dtype=like.dtype)
        self._columns = torch.full((rows, count), -1, device=like.device)

    def add(self, block: ScoreBlock) -> None:
        """Take in a block; which of equal scores at the end of a row's list stays is not said."""
        best_scores, best_columns = self._scores[block.rows], self._columns[block.rows]  # views
        better = (block.scores.amax(1) > best_scores[:, -1]).nonzero().flatten()
        new = block.scores[better].topk(min(best_scores.shape[1], block.scores.shape[1]), dim=1)
        scores = torch.cat([best_scores[better], new.values], 1)
        columns = torch.cat([best_columns[better], new.indices + block.columns.start], 1)
        best_scores[better], best_columns[better] = _first(scores, columns, best_scores.shape[1])

    def nearest(self) -> tuple[Tensor, Tensor]:
        """Return scores, falling, and columns, ``[rows, count]`` each, of the blocks of all ranks.

        A row with fewer than ``count`` scores ends in −∞ and −1.

        Communication: a gather of ``rows·count`` scores, and one of as many column numbers.
        """
        parts = [gather_uneven_rows(part[None]) for part in (self._scores, self._columns)]
        scores, columns = (part.transpose(0, 1).flatten(1) for part in parts)
        return _first(scores, columns, self._scores.shape[1])


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _highest(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count, sorted=False).values if len(scores) > count else scores


def _first(scores: Tensor, columns: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` highest of each row, falling, and their columns."""
    best = scores.topk(count, dim=1)
    return best.values, columns.gather(1, best.indices)


def _require_matrices(probes: Tensor, gallery: Tensor) -> None:
    if probes.ndim != 2 or gallery.ndim != 2 or probes.shape[1] != gallery.shape[1] or not len(probes):
        raise DataError(
            f"embeddings of shapes {list(probes.shape)} and {list(gallery.shape)} cannot be compared: [P, D] and "
            "[G, D] are needed, P at least 1"
        )
