"""``margin_logsumexp`` over blocks of centers: never more than ``B × block`` logits, on any device."""

import torch
from torch import Tensor

from arcdist.ops.margin_logsumexp.formula import Formula, Tuning
from arcdist.ops.margin_logsumexp.scoring import Scoring, inverse_norms


class BlockwiseScoring(Scoring):
    """One batch scored block by block.

    The forward pass sums the exponentials and, by the same weights, the centers themselves, so that the embeddings'
    gradient is there when it ends: three products of ``B·S·D`` multiply-adds in all where the exponentials are kept
    for the centers' gradient, four where the logits are computed again.
    """

    def __init__(
        self,
        embedding: Tensor,
        centers: Tensor,
        target: Tensor,
        rows: Tensor | None,
        formula: Formula,
        tuning: Tuning,
        needs_embedding: bool = True,
        needs_centers: bool = True,
    ) -> None:
        """Take the arguments of ``margin_logsumexp``, and which gradients will be asked for."""
        super().__init__(embedding, centers, target, rows, formula, tuning)
        self.narrow = torch.bfloat16 if tuning.products == "bf16" else embedding.dtype
        self.operand = embedding.to(self.narrow)
        self._buffer: Tensor | None = None
        self._kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.cosine, self.own, self.own_row = own_cosines(embedding, centers, target, rows, formula)
        self._score_negatives(needs_embedding, needs_centers)

    def _score_negatives(self, needs_embedding: bool, needs_centers: bool) -> None:
        largest = self.embedding.new_full(self.target.shape, torch.finfo(self.embedding.dtype).min)
        total = torch.zeros_like(largest)
        self._mean = torch.zeros_like(self.embedding)
        kept_dtype = self.tuning.kept_dtype or self.narrow
        room = self.tuning.kept_mib * 2**20 if needs_centers else 0.0
        for block in self.blocks():
            room -= len(self.target) * (block.stop - block.start) * kept_dtype.itemsize
            centers = self.rows_of(block)
            if self.formula.normalized:
                self.inverse_norm[block] = inverse_norms(centers)
            operand = centers.to(self.narrow)
            cosine = self._cosines(operand, lasting=room >= 0 and kept_dtype == self.embedding.dtype)
            logits, slope, which = self._logits(cosine, block)
            before, largest = largest, torch.maximum(largest, logits.amax(1))
            shares = logits.sub_(largest[:, None]).exp_()
            decay = (before - largest).exp_()
            total.mul_(decay).add_(shares.sum(1))
            weights = self._row_weights(shares, slope, which, block)
            factor = weights.to(self.narrow)
            if needs_embedding:
                self._mean.mul_(decay[:, None])
                _add_product(self._mean, factor, operand)
            if room >= 0:
                kept = factor if kept_dtype == self.narrow else weights.to(kept_dtype)
                self._kept[block.start, block.stop] = (kept, largest)
        self.lse = torch.where(total > 0, largest + total.log(), -torch.inf)
        self._mean /= torch.where(total > 0, total, 1)[:, None]

    def _cosines(self, operand: Tensor, lasting: bool = False) -> Tensor:
        """Return embedding · center, ``[B, n]``; unless ``lasting``, in the memory that the last block had."""
        shape = (len(self.target), len(operand))
        if lasting:
            cosine = self.embedding.new_empty(shape)
        else:
            if self._buffer is None:
                self._buffer = self.embedding.new_empty(len(self.target) * min(self.block, self.count))
            cosine = self._buffer[: shape[0] * shape[1]].view(shape)
        if self.narrow == cosine.dtype:
            torch.mm(self.operand, operand.T, out=cosine)
        else:
            cosine.copy_(_product(self.operand, operand.T))
        return cosine

    def _logits(self, cosine: Tensor, block: slice) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return a block's logits with −∞ for the target, their slopes, and which row of each class was nearest.

        None for a slope that is ``scale`` everywhere, and for classes of one row. Overwrites ``cosine``.
        """
        formula, slope, which = self.formula, None, None
        inverse = self.inverse_norm[block]
        if formula.negative is None and formula.subcenters == 1:
            logits = cosine.mul_(inverse * formula.scale if formula.normalized else formula.scale)
        else:
            cosine = cosine.mul_(inverse) if formula.normalized else cosine
            if formula.subcenters > 1:
                cosine, which = cosine.unflatten(1, (-1, formula.subcenters)).max(2)
            if formula.negative is None:
                logits = cosine * formula.scale
            else:
                logits, slope = formula.negative.logit(cosine), formula.negative.slope(cosine)
        first = block.start // formula.subcenters
        return _write(logits, self.target - first, -torch.inf), slope, which

    def _row_weights(self, shares: Tensor, slope: Tensor | None, which: Tensor | None, block: slice) -> Tensor:
        """Return the exponentials times d logit / d (embedding · row), ``[B, n]``, ``scale`` itself left out."""
        if slope is not None:
            shares = shares.mul_(slope)
        if which is not None:
            each = shares.new_zeros(*shares.shape, self.formula.subcenters)
            shares = each.scatter_(2, which[..., None], shares[..., None]).flatten(1)
        return shares.mul_(self.inverse_norm[block]) if self.formula.normalized else shares

    @property
    def _slope(self) -> float:
        return self.formula.scale if self.formula.negative is None else 1.0

    def embedding_gradient(self, lse_gradient: Tensor, cosine_gradient: Tensor) -> Tensor:
        """Return the embeddings' gradient, ``[B, D]``."""
        return self._mean * (lse_gradient * self._slope)[:, None] + self.own * cosine_gradient[:, None]

    def centers_gradient(
        self, block: slice, lse_gradient: Tensor, cosine_gradient: Tensor, out: Tensor, add: bool = False
    ) -> None:
        """Write a block's gradient into ``out [n, D]``, or add it."""
        finite = torch.where(self.lse > -torch.inf, self.lse, 0)
        row_gradient = lse_gradient * self._slope
        if (block.start, block.stop) in self._kept:
            weights, shift = self._kept[block.start, block.stop]
            row_gradient = row_gradient * (shift - finite).exp()
        else:
            logits, slope, which = self._logits(self._cosines(self.rows_of(block).to(self.narrow)), block)
            weights = self._row_weights(logits.sub_(finite[:, None]).exp_(), slope, which, block)
        scaled = (self.embedding * row_gradient[:, None]).to(self.narrow)
        _add_product(out, weights.to(self.narrow).T, scaled, keep=add)
        self._add_own(block, cosine_gradient, out)

    def _add_own(self, block: slice, cosine_gradient: Tensor, out: Tensor) -> None:
        """Add the gradient of a block's centers as some rows' own."""
        row = self.own_row - block.start
        inside = (row >= 0) & (row < len(out))
        each = torch.where(inside, row, 0)
        by = torch.where(inside, cosine_gradient * self.inverse_norm[block][each], 0)
        if out.is_cuda:
            out.index_add_(0, each, self.embedding * by[:, None])
        else:  # a look at which they are costs less than adding zeros, where no one waits for it
            rows = inside.nonzero().squeeze(1)
            out.index_add_(0, each[rows], self.embedding[rows] * by[rows, None])


def own_cosines(
    embedding: Tensor, centers: Tensor, target: Tensor, rows: Tensor | None, formula: Formula
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's cosine to its own center ``[B]``, that center's unit row ``[B, D]``, and its row ``[B]``.

    Zeros, and row −1, where ``target`` is −1. In the embeddings' dtype whatever the products are: this column decides
    the loss. The row counts among ``rows`` where these are given. Arguments as for ``margin_logsumexp``.
    """
    owned, each = target >= 0, formula.subcenters
    if not len(centers if rows is None else rows):
        return embedding.new_zeros(len(target)), torch.zeros_like(embedding), target
    candidates = target.clamp_min(0)[:, None] * each + torch.arange(each, device=target.device)
    units = centers[candidates if rows is None else rows[candidates]].to(embedding.dtype)
    if formula.normalized:
        units = units * inverse_norms(units)[..., None]
    cosine, which = (units * embedding[:, None]).sum(2).max(1)
    every = torch.arange(len(which), device=which.device)
    row = torch.where(owned, candidates[every, which], -1)
    return torch.where(owned, cosine, 0), units[every, which] * owned[:, None], row


def _add_product(out: Tensor, left: Tensor, right: Tensor, keep: bool = True) -> None:
    """Add a product to ``out``, or without ``keep`` write it there."""
    if out.dtype == left.dtype:
        out.addmm_(left, right, beta=float(keep))  # at 0, what is there is not read
    elif keep:
        out += _product(left, right)
    else:
        out.copy_(_product(left, right))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of narrow matrices, summed in float32; in float32 too where the device can say so."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right


def _write(block: Tensor, column: Tensor, value: Tensor | float) -> Tensor:
    """Write ``value`` into each row's ``column`` of a block, in place; a column outside of the block is no one's."""
    inside = (column >= 0) & (column < block.shape[1])
    column = torch.where(inside, column, 0)[:, None]
    # Read and written back where it is not inside: a mask would make the host wait for the device.
    written = torch.where(
        inside[:, None], torch.as_tensor(value, dtype=block.dtype).reshape(-1, 1), block.gather(1, column)
    )
    return block.scatter_(1, column, written)
