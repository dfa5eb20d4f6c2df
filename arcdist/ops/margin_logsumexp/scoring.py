"""One batch scored against this rank's centers: what the implementations share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from arcdist.ops.margin_logsumexp.formula import Formula, Tuning

_BLOCK_ELEMENTS = {"cpu": 2**19, "cuda": 2**24}  # a CPU's block stays in its cache, a GPU's fills its multiprocessors


def classes_of_block(rows: int, device: str) -> int:
    """Return how many classes are scored at once for so many rows on a kind of device, if nothing else is asked for."""
    return max(256, _BLOCK_ELEMENTS.get(device, 2**19) // max(1, rows))


class Scoring(ABC):
    """The forward pass of ``margin_logsumexp``, and what its gradients need.

    Attributes:
        lse: ``[B]``, of the negatives.
        cosine: ``[B]``, to the own centers.
        inverse_norm: ``[S]``, what each center is multiplied by; ones where they are taken as they are.
        block: centers of a block.
        count: centers that take part.
    """

    lse: Tensor
    cosine: Tensor

    def __init__(
        self,
        embedding: Tensor,
        centers: Tensor,
        target: Tensor,
        rows: Tensor | None,
        formula: Formula,
        tuning: Tuning,
    ) -> None:
        """Take the arguments of ``margin_logsumexp``."""
        self.embedding, self.centers, self.target, self.rows = embedding, centers, target, rows
        self.formula, self.tuning = formula, tuning
        self.count = len(centers) if rows is None else len(rows)
        self.block = formula.subcenters * (tuning.block or classes_of_block(len(target), embedding.device.type))
        self.inverse_norm = embedding.new_ones(self.count)

    def blocks(self) -> Iterator[slice]:
        """Return the blocks of rows in their order."""
        for start in range(0, self.count, self.block):
            yield slice(start, min(start + self.block, self.count))

    def rows_of(self, block: slice) -> Tensor:
        """Return a block's centers as they are, ``[n, D]``, in the embeddings' dtype."""
        rows = self.centers[block] if self.rows is None else self.centers.index_select(0, self.rows[block])
        return rows.to(self.embedding.dtype)

    @abstractmethod
    def embedding_gradient(self, lse_gradient: Tensor, cosine_gradient: Tensor) -> Tensor:
        """Return the embeddings' gradient, ``[B, D]``."""

    @abstractmethod
    def centers_gradient(
        self, block: slice, lse_gradient: Tensor, cosine_gradient: Tensor, out: Tensor, add: bool = False
    ) -> None:
        """Write the gradient of a block of centers into ``out [n, D]``, or add it to what is there.

        As if a center's ``inverse_norm`` were a constant: what lies along the center, the caller takes out.
        """


def inverse_norms(rows: Tensor) -> Tensor:
    """Return 1 / length of each row, ``[…]`` for ``[…, D]``; large but finite for a row of zeros."""
    return 1 / rows.norm(dim=-1).clamp_min(1e-12)
