"""``margin_logsumexp`` over blocks of centers: never more than ``B × block`` logits, on any device."""

from typing import Any

import torch
from torch import Tensor

_BLOCK = {"cpu": 2048, "cuda": 16384}  # a CPU's block stays in its cache, a GPU's fills its multiprocessors


def margin_logsumexp(
    embedding: Tensor,
    centers: Tensor,
    target: Tensor,
    target_logit: Tensor,
    scale: float,
    block: int | None = None,
) -> Tensor:
    """Return ``log Σ_j exp(logit_j)`` over this rank's centers, ``[B]``, in float32 or wider.

    ``logit_j`` is ``scale · embedding·center_j``, but the target's is ``target_logit``: a margin touches one
    column, so it is applied outside, and no kernel knows any margin.

    Args:
        embedding: ``[B, D]``, unit rows.
        centers: ``[S, D]``, unit rows; ``S`` may be 0, which gives −∞.
        target: ``[B]`` int64, the row of ``centers`` that is the row's own class, or −1 where that class is on
            another rank.
        target_logit: ``[B]``, read only where ``target`` is not −1.
        scale: multiplies every other logit.
        block: centers of one block; by default what suits the device. The result does not depend on it.

    Memory: ``B·block`` logits in either direction; the backward pass computes them again.
    Cost: two products of ``B·S·D`` multiply-adds in the backward pass and one in either direction for the logits.
    """
    block = block or _BLOCK.get(embedding.device.type, 2048)
    result: Tensor = _MarginLogSumExp.apply(embedding, centers, target, target_logit, scale, block)
    return result


class _MarginLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embedding: Tensor, centers: Tensor, target: Tensor, target_logit: Tensor, scale: float, block: int
    ) -> Tensor:
        wide = torch.promote_types(embedding.dtype, torch.float32)
        largest = embedding.new_full(target.shape, -torch.inf, dtype=wide)
        total = torch.zeros_like(largest)
        for start in range(0, len(centers), block):
            logits = _logits(embedding, centers[start : start + block], scale, wide)
            _replace_target(logits, target - start, target_logit)
            before, largest = largest, torch.maximum(largest, logits.amax(1))
            total *= (before - largest).exp()
            total += logits.sub_(largest[:, None]).exp_().sum(1)
        lse = largest + total.log()
        ctx.save_for_backward(embedding, centers, target, target_logit, lse)
        ctx.scale, ctx.block = scale, block
        return lse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedding, centers, target, target_logit, lse = ctx.saved_tensors
        # A row of −∞ comes from no centers at all, so no block below meets it.
        owned = target >= 0
        target_gradient = torch.where(owned, gradient * (target_logit.to(lse.dtype) - lse).exp(), 0)
        embedding_gradient = torch.zeros_like(embedding, dtype=lse.dtype)
        centers_gradient = torch.empty_like(centers)
        for start in range(0, len(centers), ctx.block):
            rows = centers[start : start + ctx.block]
            share = _logits(embedding, rows, ctx.scale, lse.dtype).sub_(lse[:, None]).exp_()
            share *= (gradient * ctx.scale)[:, None]
            _replace_target(share, target - start, torch.zeros_like(lse))
            share = share.to(embedding.dtype)
            embedding_gradient += share @ rows
            torch.mm(share.T, embedding, out=centers_gradient[start : start + ctx.block])
        return (
            embedding_gradient.to(embedding.dtype),
            centers_gradient,
            None,
            target_gradient.to(target_logit.dtype),
            None,
            None,
        )


def _logits(embedding: Tensor, centers: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    return (embedding @ centers.T).to(dtype).mul_(scale)


def _replace_target(logits: Tensor, column: Tensor, value: Tensor) -> None:
    """Write ``value`` into each row's ``column`` of this block, in place; a column outside of the block is no one's."""
    inside = (column >= 0) & (column < logits.shape[1])
    column = torch.where(inside, column, 0)[:, None]
    # Read and written back where it is not inside: a mask would make the host wait for the device.
    logits.scatter_(1, column, torch.where(inside[:, None], value[:, None].to(logits.dtype), logits.gather(1, column)))
