"""What a head asks of a margin."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F


def softplus(value: Tensor) -> Tensor:
    """Return log(1 + exp(value)), exact in float64 too: torch's default takes it for ``value`` from 20 on."""
    return F.softplus(value, threshold=50.0)


class Negative(Protocol):
    """How the classes that are not a row's own are scored; elementwise, so that kernels may call it on any block."""

    def logit(self, cosine: Tensor) -> Tensor:
        """Return the logits of a block of cosines, ``[B, n]``; −∞ leaves the denominator."""
        ...

    def slope(self, cosine: Tensor) -> Tensor:
        """Return the logits' derivatives by their cosines, ``[B, n]``."""
        ...


class Margin(nn.Module, ABC):
    """From a row's cosine to its own center, and the log-sum-exp of its negatives, to its loss.

    A plain margin defines ``target_logit`` alone. Its state, if it has any, is in buffers: the same on every rank,
    and in the checkpoint. Within an optimizer step the state stays as the step before left it; ``end_step`` moves it
    once, by what ``observe`` saw of the whole global batch. So it depends on neither the number of ranks nor that of
    micro-batches.

    Attributes:
        scale: multiplies every logit.
        strength: the share of the margin that counts, in [0, 1], which a run may let grow.
        unit_embeddings: whether embeddings count as unit rows. False: ``cosine`` is the product with the embedding as
            it is, the norm times the cosine where centers are unit rows.
        unit_centers: whether centers count as unit rows.
        bias: whether each class has one (only where ``unit_embeddings`` and ``unit_centers`` are False).
        rows: the places of a round's rows in the step's global batch, int64 ``[B]``, on the CPU; the head sets it.
        needs_target_first: whether ``negative`` looks at the cosines; they then cost a collective of their own.
    """

    scale: float
    strength: float = 1.0
    unit_embeddings: bool = True
    unit_centers: bool = True
    bias: bool = False
    needs_target_first: bool = False
    rows: Tensor | None = None

    @abstractmethod
    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``, scale applied.

        Args:
            cosine: ``[B]``, of the global batch; beyond ±1 by rounding at most.
            norm: ``[B]``, the embeddings' lengths.
        """

    def losses(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> Tensor:
        """Return each row's loss, ``[B]``.

        Args:
            cosine: ``[B]``, to the own center.
            norm: ``[B]``, the embeddings' lengths.
            negatives: ``[B]``, log Σ exp(logit) over all other classes; −∞ where there is none.
        """
        return softplus(negatives - self.target_logit(cosine, norm))

    def negative(self, cosine: Tensor) -> Negative | None:
        """Return how the negatives are scored; None: ``scale · cosine``.

        Args:
            cosine: ``[B]``, to the own centers, without gradient; meaningless unless ``needs_target_first``.
        """
        return None

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """See the rows of one round, without gradient; arguments as for ``losses``."""

    def end_step(self) -> None:
        """Move the state by what the rounds of a step have shown."""
