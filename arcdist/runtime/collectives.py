"""Collectives that autograd can cross, all of which also work without a process group, as a world of one.

Gradients are those of **one loss** that every rank computes alike from what was gathered: each rank's backward pass
holds a part of the gradient, and the backward of a gathering sums the parts. Nothing here knows of any mean.
"""

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp

from arcdist.errors import ArcdistError
from arcdist.runtime.device_clock import DeviceClock
from arcdist.runtime.ranges import named_range

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


def world_size(group: ProcessGroup | None = None) -> int:
    """Return the number of ranks, of a group or of all, 1 without a process group."""
    return dist.get_world_size(group) if is_distributed() else 1


def barrier() -> None:
    """Wait for every rank."""
    if is_distributed():
        dist.barrier()


_in_collectives: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@contextlib.contextmanager
def timed(clock: DeviceClock) -> Generator[None]:
    """Let ``clock`` run, within the block, while this rank gathers or reduces tensors; autograd's threads included."""
    global _in_collectives
    before, _in_collectives = _in_collectives, clock
    try:
        yield
    finally:
        _in_collectives = before


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, group: ProcessGroup | None, rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        gathered = _gather_packed([rows, *others], group)
        ctx.mark_non_differentiable(*gathered[1:])
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
        mine = gradient.new_empty(gradient.shape[0] // world_size(ctx.group), *gradient.shape[1:])
        _reduce_scatter(mine, gradient.contiguous(), ctx.group)
        return None, mine, *(None for _ in others)


def gather_rows(rows: Tensor, *others: Tensor, group: ProcessGroup | None = None) -> tuple[Tensor, ...]:
    """Return the rows of all ranks of each tensor, ``[W·b, …]``, in the order of the ranks.

    The gradient of ``rows`` is the sum over ranks of the gradients of their copies of the result; ``others`` have none.

    Args:
        rows: ``[b, …]``, the same shape on every rank.
        others: as many rows each, of any dtype.
        group: whose ranks; all by default.

    Communication: one all-gather of them all; one reduce-scatter of the size of ``rows`` in the backward pass.
    """
    if world_size(group) == 1:
        return rows, *others
    with named_range("gather"):
        gathered: tuple[Tensor, ...] = _GatherRows.apply(group, rows, *others)
    return gathered


class _GatherAlike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group, ctx.count = group, rows.shape[0]
        return _gather(rows, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        start = dist.get_rank(ctx.group) * ctx.count
        return gradient[start : start + ctx.count], None


def gather_alike(rows: Tensor, group: ProcessGroup) -> Tensor:
    """Return the rows ``[b, …]`` of all ranks of a group, of which all compute the same, in their order.

    So the gradient of a rank's own rows is that of its own copy of them, and needs no communication.
    """
    gathered: Tensor = _GatherAlike.apply(rows, group)
    return gathered


class _SumGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_reduce_sum(gradient, ctx.group), None


def sum_gradient(value: Tensor, group: ProcessGroup) -> Tensor:
    """Return ``value``, which the ranks of a group hold alike; its gradient is the sum of theirs."""
    result: Tensor = _SumGradient.apply(value, group)
    return result


def _gather_packed(tensors: list[Tensor], group: ProcessGroup | None) -> tuple[Tensor, ...]:
    """Return the rows of all ranks of each tensor, sent together as bytes."""
    if len(tensors) == 1:
        return (_gather(tensors[0], group),)
    count = tensors[0].shape[0]
    parts = [tensor.contiguous().view(count, -1).view(torch.uint8) for tensor in tensors]
    everyones = _gather(torch.cat(parts, 1), group).split([part.shape[1] for part in parts], 1)
    return tuple(
        part.contiguous().view(tensor.dtype).view(-1, *tensor.shape[1:]) for part, tensor in zip(everyones, tensors)
    )


def _gather(rows: Tensor, group: ProcessGroup | None = None) -> Tensor:
    result = rows.new_empty(world_size(group) * rows.shape[0], *rows.shape[1:])
    # The new name comes with torch 2.13, which deprecates the old one.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    with _in_collectives:
        gather(result, rows.contiguous(), group=group)
    return result


def _reduce_scatter(mine: Tensor, everyones: Tensor, group: ProcessGroup | None) -> None:
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    with _in_collectives:
        scatter(mine, everyones, group=group)


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
    def forward(ctx: Any, lse: Tensor, summand: Tensor, group: ProcessGroup | None) -> tuple[Tensor, Tensor]:
        shift = all_reduce_max(lse, group).clamp_min(torch.finfo(lse.dtype).min)
        total, summed = all_reduce_sum(torch.stack([(lse - shift).exp(), summand]), group).unbind()
        joined = shift + total.log()
        ctx.save_for_backward(torch.where(total > 0, (lse - joined).exp(), 0))
        return joined, summed

    @staticmethod
    def backward(ctx: Any, joined_gradient: Tensor, summed_gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (share,) = ctx.saved_tensors
        return joined_gradient * share, summed_gradient, None


def logsumexp_and_sum(lse: Tensor, summand: Tensor, group: ProcessGroup | None = None) -> tuple[Tensor, Tensor]:
    """Return log Σ_ranks exp(lse) and Σ_ranks summand, both ``[B]``, the same on every rank.

    The loss that is made of them is one loss that every rank computes alike, so a rank's gradient is its own share
    of it, and the backward pass needs no communication.

    Args:
        lse: ``[B]``; −∞ on a rank that has nothing to add.
        summand: ``[B]``.
        group: whose ranks; all by default.

    Communication: an all-reduce of ``B`` numbers, and one of ``2·B``.
    """
    if world_size(group) == 1:
        return lse, summand
    joined, total = _LogSumExpRanks.apply(lse, summand, group)
    return joined, total


@torch.no_grad()
def all_reduce_sum(value: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the sum over all ranks, or those of a group, a new tensor."""
    result = value.clone()
    if is_distributed():
        with _in_collectives:
            dist.all_reduce(result, ReduceOp.SUM, group=group)
    return result


@torch.no_grad()
def sum_in_place(value: Tensor, group: ProcessGroup | None = None) -> None:
    """Make ``value`` the sum over all ranks, or those of a group, the same bits on each."""
    with _in_collectives:
        dist.all_reduce(value, ReduceOp.SUM, group=group)


@torch.no_grad()
def all_reduce_max(value: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the largest over all ranks, or those of a group, a new tensor."""
    result = value.clone()
    if is_distributed():
        with _in_collectives:
            dist.all_reduce(result, ReduceOp.MAX, group=group)
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
