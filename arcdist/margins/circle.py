"""CircleLoss: similarities weighted by how far they are from where they should be."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from arcdist.margins.config import MarginConfig, named, require
from arcdist.margins.protocol import Margin

GRADIENTS = ("detached", "exact")


@dataclass
class CircleLossConfig(MarginConfig):
    """CircleLoss with class labels: cosines far from their optimum count for more."""

    name: str = named("circleloss")
    scale: float = field(default=256.0, metadata={"help": "γ, multiplies every logit"})
    m: float = field(default=0.25, metadata={"help": "the relaxation: targets above 1 − m, negatives below m"})
    gradient: str = field(
        default="detached", metadata={"help": "detached (the paper's: weights are constants) | exact"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require(0 < self.scale < math.inf, "scale", self.scale, "be a number above 0; the paper uses 256")
        require(0 <= self.m < 1, "m", self.m, "be in [0, 1)")
        require(self.gradient in GRADIENTS, "gradient", self.gradient, f"be one of {', '.join(GRADIENTS)}")

    def _margin(self, num_classes: int | None, seed: int) -> "CircleLoss":
        return CircleLoss(self.scale, self.m, self.gradient)


class CircleLoss(Margin):
    """``γ·[1 + m − c]₊·(c − 1 + m)`` for the target, ``γ·[c + m]₊·(c − m)`` for others; arXiv:2002.10857, eq. 4 to 6.

    The weights [·]₊ say how fast a similarity should be mended, so the paper's gradients hold them
    constant, as implementations with autograd do by ``detach``; with ``gradient="exact"`` they have theirs.
    ``strength`` scales m.
    """

    def __init__(self, scale: float = 256.0, m: float = 0.25, gradient: str = "detached") -> None:
        super().__init__()
        self.scale, self.m, self.gradient = scale, m, gradient

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        m = self.strength * self.m
        weight = (1 + m - cosine).clamp_min(0)
        if self.gradient == "detached":
            weight = weight.detach()
        return self.scale * weight * (cosine - (1 - m))

    def negative(self, cosine: Tensor) -> "_Circle":
        """Return the scoring of negatives."""
        return _Circle(self.scale, self.strength * self.m, self.gradient == "detached")


@dataclass(frozen=True)
class _Circle:
    scale: float
    m: float
    detached: bool

    def logit(self, cosine: Tensor) -> Tensor:
        return self.scale * (cosine + self.m).clamp_min(0) * (cosine - self.m)

    def slope(self, cosine: Tensor) -> Tensor:
        if self.detached:
            return self.scale * (cosine + self.m).clamp_min(0)
        return 2 * self.scale * cosine * (cosine > -self.m)
