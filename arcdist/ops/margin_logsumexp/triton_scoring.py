"""``margin_logsumexp`` by the kernels of ``triton``: no logits in device memory, in either direction."""

from typing import cast

import torch
from torch import Tensor

from arcdist.ops.margin_logsumexp import triton
from arcdist.ops.margin_logsumexp.formula import Formula, Tuning
from arcdist.ops.margin_logsumexp.scoring import Scoring, inverse_norms


class TritonScoring(Scoring):
    """One batch scored by the fused kernels: five products of ``B·S·D`` multiply-adds, every logit made three times."""

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
        """Take the arguments of ``margin_logsumexp``."""
        super().__init__(embedding, centers, target, rows, formula, tuning)
        if formula.normalized:
            for block in self.blocks():
                self.inverse_norm[block] = inverse_norms(self.rows_of(block))
        self._scored = (centers if rows is None else centers.index_select(0, rows)).contiguous()
        self._inverse_norm = self.inverse_norm if formula.normalized else None
        self._products = cast(triton.Products, tuning.products)
        self.lse, self.cosine = triton.forward(
            embedding, self._scored, self._inverse_norm, target, formula.scale, self._products
        )

    def embedding_gradient(self, lse_gradient: Tensor, cosine_gradient: Tensor) -> Tensor:
        """Return the embeddings' gradient, ``[B, D]``."""
        return triton.embedding_gradient(
            self.embedding,
            self._scored,
            self._inverse_norm,
            self.target,
            self.formula.scale,
            self.lse,
            lse_gradient.contiguous(),
            cosine_gradient.contiguous(),
            self._products,
        )

    def centers_gradient(
        self, block: slice, lse_gradient: Tensor, cosine_gradient: Tensor, out: Tensor, add: bool = False
    ) -> None:
        """Write a block's gradient into ``out [n, D]``, or add it."""
        gradient = triton.centers_gradient(
            self.embedding,
            self._scored,
            self._inverse_norm,
            self.target,
            self.formula.scale,
            self.lse,
            lse_gradient.contiguous(),
            cosine_gradient.contiguous(),
            self._products,
            block.start,
            block.stop,
        )
        out.copy_(out + gradient if add else gradient)


def can_score(embedding: Tensor, formula: Formula) -> bool:
    """Return whether the kernels know this formula, and these embeddings; on a CPU only Triton's interpreter does."""
    dims = embedding.shape[1]
    runs = embedding.is_cuda or triton.knobs.runtime.interpret
    plain = formula.negative is None and formula.subcenters == 1
    return runs and plain and embedding.dtype != torch.float64 and dims % 16 == 0 and dims <= 1024
