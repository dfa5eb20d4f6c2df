"""The combined margin of the ArcFace paper, cos(m1·θ + m2) − m3, whose cases are its relatives."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.margins.angle import widened_cosine
from arcdist.margins.config import MarginConfig, named, require, require_cosine_margin, require_radians, require_scale
from arcdist.margins.protocol import Margin

GRADIENTS = ("exact", "straight_through")


@dataclass
class CombinedConfig(MarginConfig):
    """The margin softmax: scale · (cos(m1·θ + m2) − m3) for the target, scale · cos θ for every other class."""

    name: str = named("combined")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    m1: float = field(default=1.0, metadata={"help": "multiplies the angle (SphereFace)"})
    m2: float = field(default=0.5, metadata={"help": "is added to the angle, in radians (ArcFace)"})
    m3: float = field(default=0.0, metadata={"help": "is taken from the cosine (CosFace)"})
    gradient: str = field(
        default="exact", metadata={"help": "exact | straight_through (arcface_torch's, for comparison with it)"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require(0 < self.m1 < math.inf, "m1", self.m1, "be a number above 0; 1 leaves the angle as it is")
        require_radians("m2", self.m2)
        require_cosine_margin("m3", self.m3)
        require(self.gradient in GRADIENTS, "gradient", self.gradient, f"be one of {', '.join(GRADIENTS)}")

    def _margin(self, num_classes: int | None, seed: int) -> "Combined":
        return Combined(self.scale, self.m1, self.m2, self.m3, self.gradient)


class Combined(Margin):
    """``scale · (cos(m1·θ + m2) − m3)``, equation 4 of arXiv:1801.07698.

    (1, m, 0) is ArcFace, (1, 0, m) CosFace (arXiv:1801.09414, equation 4), (m, 0, 0) SphereFace with normalized
    embeddings, (1, 0, 0) the normalized softmax (arXiv:1704.06369). Beyond π it falls on, see ``widened_cosine``.

    With ``gradient="straight_through"`` value and gradient are arcface_torch's: the margin counts as a constant, so
    the slope is ``scale`` at every angle, and beyond π the cosine rises again.

    ``strength`` in [0, 1] may be set at any time: the share of the margins that counts, for a start without them.
    """

    def __init__(
        self, scale: float = 64.0, m1: float = 1.0, m2: float = 0.5, m3: float = 0.0, gradient: str = "exact"
    ) -> None:
        super().__init__()
        CombinedConfig(scale=scale, m1=m1, m2=m2, m3=m3, gradient=gradient).validate()
        self.scale, self.m1, self.m2, self.m3, self.gradient = scale, m1, m2, m3, gradient

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``; cosines beyond ±1 by rounding count as ±1."""
        m1, m2, m3 = 1 + self.strength * (self.m1 - 1), self.strength * self.m2, self.strength * self.m3
        if m1 == 1 and m2 == 0:
            return self.scale * (cosine - m3)
        if self.gradient == "exact":
            return self.scale * (widened_cosine(cosine, m1, m2) - m3)
        with torch.no_grad():
            shift = (m1 * cosine.clamp(-1, 1).arccos() + m2).cos() - cosine
        return self.scale * (cosine + shift - m3)
