"""Pairs of a batch's rows by their first member, the anchor: ranks share the anchors out, and take them in blocks."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from arcdist.heads.auxiliary.protocol import Rows
from arcdist.runtime import collectives

_PAIRS_AT_ONCE = 8192 * 8192


def blocks(rows: Rows) -> list[range]:
    """Return this rank's anchors, in ranges of so many that their pairs with the batch fit into memory at once."""
    size = max(1, _PAIRS_AT_ONCE // len(rows.labels))
    return [rows.anchors[start : start + size] for start in range(0, len(rows.anchors), size)]


def sum_over_anchors(function: Callable[[range], Tensor], rows: Rows) -> Tensor:
    """Return the sum of ``function`` over blocks of this rank's anchors; several are computed again going backward."""
    parts = blocks(rows)
    if len(parts) == 1:
        return function(parts[0])
    sums = [checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum(0)


@torch.no_grad()
def mine(function: Callable[[range], tuple[Tensor, Tensor]], rows: Rows) -> tuple[Tensor, Tensor]:
    """Return what ``function`` finds for every row of the batch, ``[B, …]`` each, on every rank, without gradient.

    Communication: an all-gather of what was found.
    """
    found = [function(part) for part in blocks(rows)]
    values = torch.cat([values for values, _ in found])
    indices = torch.cat([indices for _, indices in found])
    values, indices = collectives.gather_rows(values, indices)
    return values, indices


def same_class(labels: Tensor, anchors: range) -> Tensor:
    """Return which rows have an anchor's label, bool ``[len(anchors), B]``; the anchor itself does."""
    return labels[anchors.start : anchors.stop, None] == labels


def rows_after(labels: Tensor, anchors: range) -> Tensor:
    """Return which rows come after an anchor, bool ``[len(anchors), B]``: every pair of the batch once."""
    index = torch.arange(len(labels), device=labels.device)
    return index > index[anchors.start : anchors.stop, None]


def other_rows(labels: Tensor, anchors: range) -> Tensor:
    """Return which rows are not the anchor itself, bool ``[len(anchors), B]``."""
    index = torch.arange(len(labels), device=labels.device)
    return index != index[anchors.start : anchors.stop, None]


def first_of_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each row, the first row of the batch that has its label, and how many have it, int64 ``[B]`` each."""
    ordered, order = labels.sort(stable=True)
    start = torch.searchsorted(ordered, labels)
    return order[start], torch.searchsorted(ordered, labels, right=True) - start
