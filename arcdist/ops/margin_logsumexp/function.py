"""``margin_logsumexp`` for autograd, and the centers' gradient block by block."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.ops.margin_logsumexp.blockwise import BlockwiseScoring
from arcdist.ops.margin_logsumexp.formula import Formula, Tuning
from arcdist.ops.margin_logsumexp.scoring import Scoring


class CentersGradient:
    """The gradient of centers that backward passes have left to be computed, block by block.

    It adds up over backward passes, so rounds of a larger batch need no gradient of full size either.
    """

    def __init__(self) -> None:
        self._rounds: list[tuple[Scoring, Tensor, Tensor]] = []

    def add(self, scoring: Scoring, lse_gradient: Tensor, cosine_gradient: Tensor) -> None:
        """Remember one backward pass."""
        self._rounds.append((scoring, lse_gradient, cosine_gradient))

    def __len__(self) -> int:
        return len(self._rounds)

    @torch.no_grad()
    def blocks(self) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Return rows of the centers and their gradient ``[n, D]``, whose memory the next block takes; then forget.

        The centers of a block may be changed once it was given.
        """
        if not self._rounds:
            return
        first = self._rounds[0][0]
        memory = first.embedding.new_empty(min(first.block, first.count), first.embedding.shape[1])
        for block in first.blocks():
            gradient = memory[: block.stop - block.start]
            for number, (scoring, lse_gradient, cosine_gradient) in enumerate(self._rounds):
                scoring.centers_gradient(block, lse_gradient, cosine_gradient, gradient, add=number > 0)
            if first.formula.normalized:
                _project(gradient, first.rows_of(block), first.inverse_norm[block])
            yield (block if first.rows is None else first.rows[block]), gradient
        self._rounds.clear()


def _project(gradient: Tensor, centers: Tensor, inverse_norm: Tensor) -> None:
    """Take from each row's gradient its part along the row, in place: length does not count."""
    along = (gradient * centers).sum(1) * inverse_norm.square()
    gradient.addcmul_(centers, along[:, None], value=-1)


def margin_logsumexp(
    embedding: Tensor,
    centers: Tensor,
    target: Tensor,
    formula: Formula,
    tuning: Tuning | None = None,
    rows: Tensor | None = None,
    deferred: CentersGradient | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``log Σ_j exp(logit_j)`` over the negatives among this rank's centers, and the cosine to the own one.

    Both ``[B]``. The target is in the cosine alone: a margin touches one column, so it is applied outside, and no
    kernel knows any margin; ranks are joined outside too. Kept apart from the target, the negatives' sum also gives
    the gradient of a row that is nearly fitted without cancellation.

    Args:
        embedding: ``[B, D]``, unit rows where cosines are wanted.
        centers: ``[S · subcenters, D]``, not normalized.
        target: ``[B]`` int64, which of the S classes is the row's own, or −1 where that class is on another rank: its
            cosine then is 0. Counts among ``rows`` where these are given.
        formula: what is computed.
        tuning: how.
        rows: int64, the rows of ``centers`` that take part, whole classes in rising order; None: all.
        deferred: takes the centers' gradient, which then is not made in full: ``centers.grad`` stays as it is.

    ``S`` may be 0, and the target a row's only class: the log-sum-exp is −∞.
    """
    lse, cosine = _MarginLogSumExp.apply(embedding, centers, target, formula, tuning or Tuning(), rows, deferred)
    return lse, cosine


class _MarginLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embedding: Tensor,
        centers: Tensor,
        target: Tensor,
        formula: Formula,
        tuning: Tuning,
        rows: Tensor | None,
        deferred: CentersGradient | None,
    ) -> tuple[Tensor, Tensor]:
        needs_embedding, needs_centers = ctx.needs_input_grad[:2]
        scoring = _implementation(embedding, formula, tuning)
        ctx.scoring = scoring(
            embedding.detach(), centers.detach(), target, rows, formula, tuning, needs_embedding, needs_centers
        )
        ctx.deferred, ctx.needs_centers = deferred, needs_centers
        return ctx.scoring.lse.clone(), ctx.scoring.cosine.clone()

    @staticmethod
    def backward(ctx: Any, lse_gradient: Tensor, cosine_gradient: Tensor) -> tuple[Tensor | None, ...]:
        scoring = ctx.scoring
        embedding_gradient = scoring.embedding_gradient(lse_gradient, cosine_gradient)
        centers_gradient = None
        if ctx.needs_centers:
            gradient = ctx.deferred if ctx.deferred is not None else CentersGradient()
            gradient.add(scoring, lse_gradient, cosine_gradient)
            if ctx.deferred is None:
                centers_gradient = _dense(gradient, scoring)
        return embedding_gradient, centers_gradient, None, None, None, None, None


def _dense(gradient: CentersGradient, scoring: Scoring) -> Tensor:
    dense = torch.empty_like(scoring.centers) if scoring.rows is None else torch.zeros_like(scoring.centers)
    for rows, block in gradient.blocks():
        dense[rows] = block.to(dense.dtype)
    return dense


def _implementation(embedding: Tensor, formula: Formula, tuning: Tuning) -> Callable[..., Scoring]:
    if tuning.implementation == "blockwise" or (tuning.implementation == "auto" and not embedding.is_cuda):
        return BlockwiseScoring
    if importlib.util.find_spec("triton") is not None:
        from arcdist.ops.margin_logsumexp.triton_scoring import TritonScoring, can_score

        if can_score(embedding, formula):
            return TritonScoring
        reason = (
            "its kernels run on CUDA, and know no negatives of their own kind, no subcenters, no float64, and dims of "
            "16·k ≤ 1024"
        )
    else:
        reason = "Triton is not installed"
    if tuning.implementation == "triton":
        raise ConfigError(f"head.implementation: 'triton': {reason}; take auto or blockwise")
    return BlockwiseScoring
