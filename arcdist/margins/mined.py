"""Margins that also weigh the negatives: those that come close to the target's own logit count for more."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.margins.angle import widened_cosine
from arcdist.margins.config import MarginConfig, named, require, require_cosine_margin, require_radians, require_scale
from arcdist.margins.protocol import Margin

KINDS = ("am", "arc")


@dataclass
class MVSoftmaxConfig(MarginConfig):
    """MV-Softmax: negatives that the target with its margin does not surpass get a penalty."""

    name: str = named("mv_softmax")
    scale: float = field(default=32.0, metadata={"help": "s, multiplies every logit"})
    kind: str = field(default="am", metadata={"help": "am (the margin on the cosine) | arc (on the angle, in radians)"})
    m: float = field(default=0.35, metadata={"help": "the margin; the authors use 0.35 for am, 0.5 for arc"})
    t: float = field(default=0.2, metadata={"help": "the penalty on a hard negative"})
    adaptive: bool = field(
        default=True, metadata={"help": "penalty t·(cos θ + 1), more for harder negatives; false: t for each"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require(self.kind in KINDS, "kind", self.kind, f"be one of {', '.join(KINDS)}")
        (require_cosine_margin if self.kind == "am" else require_radians)("m", self.m)
        require(0 <= self.t < math.inf, "t", self.t, "be a number of at least 0")

    def _margin(self, num_classes: int | None, seed: int) -> "MVSoftmax":
        return MVSoftmax(self.scale, self.kind, self.m, self.t, self.adaptive)


class MVSoftmax(Margin):
    """Mis-classified vector guided softmax, arXiv:1912.00833.

    The target's logit is ``scale · f`` with f = cos θ − m (am) or cos(θ + m) (arc). A negative with cos θ_k > f gets
    ``scale · (cos θ_k + t·(cos θ_k + 1))``, or with ``adaptive=False`` ``scale · (cos θ_k + t)``. Which ones these are
    has no gradient. ``strength`` scales m and t. The authors' code drops the margin of rows beyond 90° ("easy
    margin"), of which the paper does not speak; here it stays, and beyond π falls on, see ``widened_cosine``.
    """

    needs_target_first = True

    def __init__(
        self, scale: float = 32.0, kind: str = "am", m: float = 0.35, t: float = 0.2, adaptive: bool = True
    ) -> None:
        super().__init__()
        self.scale, self.kind, self.m, self.t, self.adaptive = scale, kind, m, t, adaptive

    def _narrowed(self, cosine: Tensor) -> Tensor:
        m = self.strength * self.m
        return cosine - m if self.kind == "am" else widened_cosine(cosine, 1.0, m)

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        return self.scale * self._narrowed(cosine)

    def negative(self, cosine: Tensor) -> "_Penalized":
        """Return the scoring of negatives: those above the target's logit get the penalty."""
        t = self.strength * self.t
        return _Penalized(self.scale, self._narrowed(cosine), t, t if self.adaptive else 0.0)


@dataclass(frozen=True)
class _Penalized:
    """``scale · (c + t + factor·c)`` above the row's threshold ``[B]``, ``scale · c`` up to it."""

    scale: float
    threshold: Tensor
    t: float
    factor: float

    def logit(self, cosine: Tensor) -> Tensor:
        hard = cosine > self.threshold[:, None]
        return self.scale * torch.where(hard, (1 + self.factor) * cosine + self.t, cosine)

    def slope(self, cosine: Tensor) -> Tensor:
        hard = cosine > self.threshold[:, None]
        return self.scale * (1 + self.factor * hard.to(cosine.dtype))


@dataclass
class CurricularFaceConfig(MarginConfig):
    """CurricularFace: hard negatives count for little at first, and for more as the training succeeds."""

    name: str = named("curricularface")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    m: float = field(default=0.5, metadata={"help": "is added to the target's angle, in radians"})
    momentum: float = field(default=0.99, metadata={"help": "what a step leaves of t, in [0, 1)"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require_radians("m", self.m)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "be in [0, 1); the authors use 0.99")

    def _margin(self, num_classes: int | None, seed: int) -> "CurricularFace":
        return CurricularFace(self.scale, self.m, self.momentum)


class CurricularFace(Margin):
    """``scale · cos(θ + m)`` for the target, ``scale · c·(t + c)`` for hard negatives; arXiv:2004.00288.

    A negative is hard where its cosine ``c`` is above cos(θ + m); the others get ``scale · c``. ``t`` is the running
    mean of the targets' cosines, from 0 on; the authors move it before they use it, here a step uses what the step
    before left. Beyond π the target falls on, see ``widened_cosine``; the authors' code goes on with cos θ − m·sin m.
    ``strength`` scales m alone: t is a curriculum of its own.
    """

    needs_target_first = True
    t: Tensor

    def __init__(self, scale: float = 64.0, m: float = 0.5, momentum: float = 0.99) -> None:
        super().__init__()
        self.scale, self.m, self.momentum = scale, m, momentum
        self.register_buffer("t", torch.tensor(0.0, dtype=torch.float64))
        self._cosines: list[Tensor] = []

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        return self.scale * widened_cosine(cosine, 1.0, self.strength * self.m)

    def negative(self, cosine: Tensor) -> "_Curriculum":
        """Return the scoring of negatives at today's ``t``."""
        return _Curriculum(self.scale, widened_cosine(cosine, 1.0, self.strength * self.m), self.t.clone())

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """Remember the targets' cosines."""
        self._cosines.append(cosine)

    def end_step(self) -> None:
        """Move ``t`` by the mean of the global batch."""
        if self._cosines:
            self.t.lerp_(torch.cat(self._cosines).mean().to(self.t), 1 - self.momentum)
            self._cosines.clear()


@dataclass(frozen=True)
class _Curriculum:
    """``scale · c·(t + c)`` above the row's threshold ``[B]``, ``scale · c`` up to it."""

    scale: float
    threshold: Tensor
    t: Tensor

    def logit(self, cosine: Tensor) -> Tensor:
        return self.scale * torch.where(cosine > self.threshold[:, None], cosine * (self.t + cosine), cosine)

    def slope(self, cosine: Tensor) -> Tensor:
        return self.scale * torch.where(cosine > self.threshold[:, None], self.t + 2 * cosine, 1)
