"""Interclass filtering: negatives that are too close to be another identity leave the denominator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arcdist.margins.protocol import Margin, Negative


class InterclassFilter(Margin):
    """Another margin, without the negatives whose cosine is above a threshold (arXiv:2203.15565).

    Such a center is probably the row's own identity under a second label. It leaves the denominator: no logit, no
    gradient. In arcface_torch its cosine becomes 0 instead, so that it goes on counting with exp(0) = 1.

    Args:
        margin: does all the rest; its embeddings and centers are unit rows.
        threshold: in (0, 1).
    """

    def __init__(self, margin: Margin, threshold: float) -> None:
        super().__init__()
        self.margin, self.threshold = margin, threshold
        self.needs_target_first = margin.needs_target_first

    @property
    def scale(self) -> float:  # ty: ignore[incompatible-property-override]
        """The margin's."""
        return self.margin.scale

    @property
    def strength(self) -> float:
        """The margin's."""
        return self.margin.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.margin.strength = value

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the margin's."""
        return self.margin.target_logit(cosine, norm)

    def losses(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> Tensor:
        """Return the margin's."""
        self.margin.rows = self.rows
        return self.margin.losses(cosine, norm, negatives)

    def negative(self, cosine: Tensor) -> Negative:
        """Return the margin's, −∞ above the threshold."""
        return _Filtered(self.margin.negative(cosine) or _Scaled(self.scale), self.threshold)

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """Show the margin the rows of one round."""
        self.margin.observe(cosine, norm, negatives)

    def end_step(self) -> None:
        """Move the margin's state."""
        self.margin.end_step()


@dataclass(frozen=True)
class _Scaled:
    scale: float

    def logit(self, cosine: Tensor) -> Tensor:
        return self.scale * cosine

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.full_like(cosine, self.scale)


@dataclass(frozen=True)
class _Filtered:
    negative: Negative
    threshold: float

    def logit(self, cosine: Tensor) -> Tensor:
        return self.negative.logit(cosine).masked_fill(cosine > self.threshold, -torch.inf)

    def slope(self, cosine: Tensor) -> Tensor:
        return self.negative.slope(cosine).masked_fill(cosine > self.threshold, 0)
