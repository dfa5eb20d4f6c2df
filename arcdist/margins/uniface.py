"""UniFace's unified cross-entropy: one threshold that parts every target from every negative."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.margins.config import MarginConfig, named, require, require_cosine_margin, require_scale
from arcdist.margins.protocol import Margin, softplus


@dataclass
class UniFaceConfig(MarginConfig):
    """UniFace: a two-sided loss on each pair of a row and a center, about one threshold for all of them."""

    name: str = named("uniface")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every cosine"})
    m: float = field(default=0.4, metadata={"help": "is taken from the target's cosine"})
    bias: float = field(
        default=0.0, metadata={"help": "b, the threshold times the scale; 0: ln(10 · classes), where the authors start"}
    )
    negative_weight: float = field(default=1.0, metadata={"help": "λ, of the negatives' part"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require_cosine_margin("m", self.m)
        require(math.isfinite(self.bias), "bias", self.bias, "be a number")
        weight = self.negative_weight
        require(0 < weight < math.inf, "negative_weight", weight, "be a number above 0")

    def _margin(self, num_classes: int | None, seed: int) -> "UniFace":
        if not self.bias and num_classes is None:
            raise ConfigError("margin.bias: 0.0: follows from the number of classes, which is not known; give a number")
        bias = self.bias or math.log(10 * (num_classes or 1))
        return UniFace(self.scale, self.m, bias, self.negative_weight)


class UniFace(Margin):
    """``ln(1 + e^(b − s·(cos θ_y − m))) + λ · Σ_j ln(1 + e^(s·cos θ_j − b))``, the UCE loss of UniFace (ICCV 2023).

    A sum over negatives, not a softmax: a negative's logit is the logarithm of its summand, so that the negatives'
    log-sum-exp is the logarithm of the sum.

    ``b`` is a constant, the authors' initial value by default; there it is learned. With a part of the classes sampled
    in a step, ``ln(10 · classes · sample_rate)`` is theirs.
    """

    def __init__(self, scale: float = 64.0, m: float = 0.4, bias: float = 15.0, negative_weight: float = 1.0) -> None:
        super().__init__()
        self.scale, self.m, self.threshold, self.negative_weight = scale, m, bias, negative_weight

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return ``s·(cos θ − m) − b``, ``[B]``."""
        return self.scale * (cosine - self.strength * self.m) - self.threshold

    def losses(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> Tensor:
        """Return each row's loss, ``[B]``: the target's part and the sum over its negatives."""
        own = softplus(-self.target_logit(cosine, norm))
        return own + self.negative_weight * negatives.exp()

    def negative(self, cosine: Tensor) -> "_LogSoftplus":
        """Return the scoring of negatives."""
        return _LogSoftplus(self.scale, self.threshold)


@dataclass(frozen=True)
class _LogSoftplus:
    """``ln ln(1 + e^z)`` of ``z = scale·c − bias``: for ``z`` far below 0 it is ``z − e^z/2``."""

    scale: float
    bias: float

    def logit(self, cosine: Tensor) -> Tensor:
        z = self.scale * cosine - self.bias
        return torch.where(z < -20, z - z.exp() / 2, softplus(z.clamp_min(-20)).log())

    def slope(self, cosine: Tensor) -> Tensor:
        z = self.scale * cosine - self.bias
        near = z.clamp_min(-20)
        return self.scale * torch.where(z < -20, 1 - z.exp() / 2, near.sigmoid() / softplus(near))
