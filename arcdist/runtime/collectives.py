"""Collectives that autograd can cross, all of which also work without a process group, as a world of one.

Gradients are those of **one loss** that every rank computes alike from what was gathered: each rank's backward pass
holds a part of the gradient, and the backward of a gathering sums the parts. Nothing here knows of any mean.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ReduceOp

from arcdist.errors import ArcdistError

_HEARTBEAT_S = 5.0


class PeerError(ArcdistError):
    """Another rank stopped, and says why; this one only stops too."""


def is_peer_failure(error: BaseException) -> bool:
    """Return whether an error of a collective only tells that another rank is gone."""
    signs = (
        *("closed by peer", "reset by peer", "Connection refused", "Broken pipe", "remote process exited"),
        *("Timed out waiting", "connectFullMesh", "Application timeout"),
    )
    return isinstance(error, PeerError) or (isinstance(error, RuntimeError) and any(s in str(error) for s in signs))


def is_distributed() -> bool:
    """Return whether a process group is there."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Wait for every rank."""
    if is_distributed():
        dist.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        gathered = _gather_packed([rows, *others])
        ctx.mark_non_differentiable(*gathered[1:])
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
        mine = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        _reduce_scatter(mine, gradient.contiguous())
        return mine, *(None for _ in others)


def gather_rows(rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of all ranks of each tensor, ``[W·b, …]``, in the order of the ranks.

    The gradient of ``rows`` is the sum over ranks of the gradients of their copies of the result; ``others`` have none.

    Args:
        rows: ``[b, …]``, the same shape on every rank.
        others: as many rows each, of any dtype.

    Communication: one all-gather of them all; one reduce-scatter of the size of ``rows`` in the backward pass.
    """
    if world_size() == 1:
        return rows, *others
    gathered: tuple[Tensor, ...] = _GatherRows.apply(rows, *others)
    return gathered


def _gather_packed(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the rows of all ranks of each tensor, sent together as bytes."""
    if len(tensors) == 1:
        return (_gather(tensors[0]),)
    count = tensors[0].shape[0]
    parts = [tensor.contiguous().view(count, -1).view(torch.uint8) for tensor in tensors]
    everyones = _gather(torch.cat(parts, 1)).split([part.shape[1] for part in parts], 1)
    return tuple(
        part.contiguous().view(tensor.dtype).view(-1, *tensor.shape[1:]) for part, tensor in zip(everyones, tensors)
    )


def _gather(rows: Tensor) -> Tensor:
    result = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
    # The new name comes with torch 2.13, which deprecates the old one.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(result, rows.contiguous())
    return result


def _reduce_scatter(mine: Tensor, everyones: Tensor) -> None:
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(mine, everyones)


@torch.no_grad()
def gather_uneven_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks in the order of the ranks; a rank may have any number of them, also none.

    Communication: one all-gather of a number, one of the longest rank's rows.
    """
    if world_size() == 1:
        return rows
    counts = _gather(torch.tensor([rows.shape[0]], device=rows.device)).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: rows.shape[0]] = rows
    everyones = _gather(padded).unflatten(0, (world_size(), max(counts)))
    return torch.cat([part[:count] for part, count in zip(everyones, counts)])


class _LogSumExpRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lse: Tensor, summand: Tensor) -> tuple[Tensor, Tensor]:
        shift = all_reduce_max(lse).clamp_min(torch.finfo(lse.dtype).min)
        total, summed = all_reduce_sum(torch.stack([(lse - shift).exp(), summand])).unbind()
        joined = shift + total.log()
        ctx.save_for_backward(torch.where(total > 0, (lse - joined).exp(), 0))
        return joined, summed

    @staticmethod
    def backward(ctx: Any, joined_gradient: Tensor, sum_gradient: Tensor) -> tuple[Tensor, Tensor]:
        (share,) = ctx.saved_tensors
        return joined_gradient * share, sum_gradient


def logsumexp_and_sum(lse: Tensor, summand: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Σ_ranks exp(lse) and Σ_ranks summand, both ``[B]``, the same on every rank.

    The loss that is made of them is one loss that every rank computes alike, so a rank's gradient is its own share
    of it, and the backward pass needs no communication.

    Args:
        lse: ``[B]``; −∞ on a rank that has nothing to add.
        summand: ``[B]``.

    Communication: an all-reduce of ``B`` numbers, and one of ``2·B``.
    """
    if world_size() == 1:
        return lse, summand
    joined, total = _LogSumExpRanks.apply(lse, summand)
    return joined, total


@torch.no_grad()
def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum over all ranks, a new tensor."""
    result = value.clone()
    if is_distributed():
        dist.all_reduce(result, ReduceOp.SUM)
    return result


@torch.no_grad()
def all_reduce_max(value: Tensor) -> Tensor:
    """Return the largest over all ranks, a new tensor."""
    result = value.clone()
    if is_distributed():
        dist.all_reduce(result, ReduceOp.MAX)
    return result


def broadcast_object(value: Any) -> Any:
    """Return rank 0's value, a picklable object."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_rank_0(function: Callable[[], Any]) -> Any:
    """Return what ``function()`` returns on rank 0, the only one that calls it, on every rank.

    It may take longer than the group's timeout: the others hear every few seconds that it is at work.

    Errors: what it raises is raised on rank 0; every other rank raises PeerError, so that all of them stop.
    """
    if not is_distributed():
        return function()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function) if rank() == 0 else None
        while broadcast_object(future is not None and bool(wait([future], _HEARTBEAT_S).not_done)):
            pass
    error = future.exception() if future else None
    answer = future.result() if future and not error else None
    answer, failed = broadcast_object((answer, error is not None))
    if error is not None:
        raise error
    if failed:
        raise PeerError("rank 0 stopped; it says why")
    return answer


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's value, picklable objects, in the order of the ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
