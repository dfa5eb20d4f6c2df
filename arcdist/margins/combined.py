"""The combined margin of the ArcFace paper, cos(m1·θ + m2) − m3, whose cases are its relatives."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from arcdist.errors import ConfigError

GRADIENTS = ("exact", "straight_through")


@dataclass
class CombinedConfig:
    """The margin softmax: scale · (cos(m1·θ + m2) − m3) for the target, scale · cos θ for every other class."""

    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    m1: float = field(default=1.0, metadata={"help": "multiplies the angle (SphereFace)"})
    m2: float = field(default=0.5, metadata={"help": "is added to the angle, in radians (ArcFace)"})
    m3: float = field(default=0.0, metadata={"help": "is taken from the cosine (CosFace)"})
    warmup: float = field(
        default=0.0, metadata={"help": "share of the run over which the margins grow from none to these, in [0, 1]"}
    )
    gradient: str = field(
        default="exact", metadata={"help": "exact | straight_through (arcface_torch's, for comparison with it)"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"margin.scale: {self.scale}: must be a number above 0; the field uses 30 to 64")
        if not (math.isfinite(self.m1) and self.m1 > 0):
            raise ConfigError(f"margin.m1: {self.m1}: must be a number above 0; 1 leaves the angle as it is")
        for name in ("m2", "m3"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < math.pi):
                raise ConfigError(f"margin.{name}: {value}: must be in [0, π); m2 is in radians, not in degrees")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"margin.warmup: {self.warmup}: must be in [0, 1], a share of the run")
        if self.gradient not in GRADIENTS:
            raise ConfigError(f"margin.gradient: {self.gradient!r}: must be one of {', '.join(GRADIENTS)}")

    def build(self) -> "Combined":
        """Return the margin."""
        self.validate()
        return Combined(self.scale, self.m1, self.m2, self.m3, self.gradient)

    def strength(self, step: int, total_steps: int) -> float:
        """Return the share of the margins that counts at a step, in [0, 1]."""
        return min(1.0, step / (self.warmup * total_steps)) if self.warmup else 1.0


class Combined:
    """``scale · (cos(m1·θ + m2) − m3)``, equation 4 of arXiv:1801.07698.

    (1, m, 0) is ArcFace, (1, 0, m) CosFace, (m, 0, 0) SphereFace, (1, 0, 0) the normalized softmax.

    Beyond ``m1·θ + m2 = π`` a cosine would rise again and reward a larger angle; SphereFace's
    ``(−1)^k cos φ − 2k`` for φ in [kπ, (k+1)π] (arXiv:1704.08063, equation 6) falls on, without a step in the
    value or in the slope.

    With ``gradient="straight_through"`` value and gradient are arcface_torch's: the margin counts as a constant, so
    the slope is ``scale`` at every angle, and beyond π the cosine rises again.

    ``strength`` in [0, 1] may be set at any time: the share of the margins that counts, for a start without them.
    """

    def __init__(
        self, scale: float = 64.0, m1: float = 1.0, m2: float = 0.5, m3: float = 0.0, gradient: str = "exact"
    ) -> None:
        CombinedConfig(scale, m1, m2, m3, gradient=gradient).validate()
        self.strength = 1.0
        self.scale, self.m1, self.m2, self.m3, self.gradient = scale, m1, m2, m3, gradient

    def target_logit(self, cosine: Tensor) -> Tensor:
        """Return the target's logit, of ``cosine``'s shape and dtype; cosines beyond ±1 by rounding count as ±1."""
        m1, m2, m3 = 1 + self.strength * (self.m1 - 1), self.strength * self.m2, self.strength * self.m3
        if m1 == 1 and m2 == 0:
            return self.scale * (cosine - m3)
        widened: Tensor
        if self.gradient == "straight_through":
            with torch.no_grad():
                shift = (m1 * cosine.clamp(-1, 1).arccos() + m2).cos() - cosine
            widened = cosine + shift
        else:
            widened = _WidenedCosine.apply(cosine, m1, m2)
        return self.scale * (widened - m3)


class _WidenedCosine(torch.autograd.Function):
    """ψ(m1·θ + m2) for θ = arccos(cosine), with the slope in closed form, finite also at cosine = ±1."""

    @staticmethod
    def forward(ctx: Any, cosine: Tensor, m1: float, m2: float) -> Tensor:
        cosine = cosine.clamp(-1, 1)
        angle = m1 * cosine.arccos() + m2
        half_turns = (angle / math.pi).floor()
        # dψ/dcos θ = m1·|sin φ| / sin θ. What cosine depends on turns by sin θ a unit, so the product stays bounded.
        sine = ((1 - cosine) * (1 + cosine)).sqrt().clamp_min(math.sqrt(torch.finfo(cosine.dtype).eps))
        ctx.save_for_backward(m1 * angle.sin().abs() / sine)
        return (1 - 2 * (half_turns % 2)) * angle.cos() - 2 * half_turns

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None
