"""Margins that depend on the embedding's norm, a measure of the image's quality."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.margins.angle import widened_cosine
from arcdist.margins.config import MarginConfig, named, require, require_radians, require_scale
from arcdist.margins.protocol import Margin


@dataclass
class AdaFaceConfig(MarginConfig):
    """AdaFace: hard rows count for more where the image is good, easy ones where it is bad."""

    name: str = named("adaface")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    m: float = field(default=0.4, metadata={"help": "the margin: all of it on the cosine where the norm is the mean"})
    h: float = field(default=0.333, metadata={"help": "norms of mean ± std/h get the whole effect"})
    momentum: float = field(default=0.99, metadata={"help": "what a step leaves of the norms' mean and std, in [0, 1)"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require_radians("m", self.m)
        require(0 <= self.h < math.inf, "h", self.h, "be a number of at least 0; 0 makes it CosFace")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "be in [0, 1); the authors use 0.99")

    def _margin(self, num_classes: int | None, seed: int) -> "AdaFace":
        return AdaFace(self.scale, self.m, self.h, self.momentum)


class AdaFace(Margin):
    """``scale · (cos(θ − m·q) − m − m·q)``, arXiv:2204.00964.

    ``q = clip(h · (norm − mean) / std, −1, 1)`` says how good the image is, and has no gradient. The widened angle is
    held in [0, π], as by the authors' code, which does so by 1e-3 within, and with every class's cosine; here only the
    target's, and up to the ends.

    Mean and std of the norms, in [0.001, 100], are running ones, from 20 and 100 on. The authors move them before they
    use them; here a step uses what the step before left.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scale: float = 64.0, m: float = 0.4, h: float = 0.333, momentum: float = 0.99) -> None:
        super().__init__()
        self.scale, self.m, self.h, self.momentum = scale, m, h, momentum
        self.register_buffer("mean", torch.tensor(20.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(100.0, dtype=torch.float64))
        self._norms: list[Tensor] = []

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        m = self.strength * self.m
        with torch.no_grad():
            quality = (self.h * (_safe(norm) - self.mean) / (self.std + 1e-3)).clamp(-1, 1)
            theta = cosine.clamp(-1, 1).arccos()
            turn = (theta - m * quality).clamp(0, math.pi) - theta
        return self.scale * (widened_cosine(cosine, 1.0, turn) - m - m * quality)

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """Remember the norms."""
        self._norms.append(_safe(norm))

    def end_step(self) -> None:
        """Move mean and std by those of the global batch's norms."""
        if not self._norms:
            return
        norms = torch.cat(self._norms)
        self._norms.clear()
        self.mean.lerp_(norms.mean().to(self.mean), 1 - self.momentum)
        if len(norms) > 1:
            self.std.lerp_(norms.std().to(self.std), 1 - self.momentum)


def _safe(norm: Tensor) -> Tensor:
    return norm.detach().clamp(1e-3, 100)


@dataclass
class MagFaceConfig(MarginConfig):
    """MagFace: the margin grows with the norm, and the loss draws the norm up."""

    name: str = named("magface")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    m_min: float = field(default=0.45, metadata={"help": "the margin at norm_min, in radians"})
    m_max: float = field(default=0.8, metadata={"help": "the margin at norm_max, in radians"})
    norm_min: float = field(default=10.0, metadata={"help": "shorter embeddings count as this long"})
    norm_max: float = field(default=110.0, metadata={"help": "longer embeddings count as this long"})
    norm_weight: float = field(default=35.0, metadata={"help": "λ_g, of the loss on the norm"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require_radians("m_min", self.m_min)
        require_radians("m_max", self.m_max)
        require(self.m_min <= self.m_max, "m_max", self.m_max, "be at least margin.m_min")
        require(0 < self.norm_min < math.inf, "norm_min", self.norm_min, "be a number above 0")
        require(self.norm_min < self.norm_max < math.inf, "norm_max", self.norm_max, "be above margin.norm_min")
        require(0 <= self.norm_weight < math.inf, "norm_weight", self.norm_weight, "be a number of at least 0")

    def _margin(self, num_classes: int | None, seed: int) -> "MagFace":
        return MagFace(self.scale, self.m_min, self.m_max, self.norm_min, self.norm_max, self.norm_weight)


class MagFace(Margin):
    """``scale · cos(θ + m(a))`` and ``norm_weight · (1/a + a/norm_max²)``, arXiv:2103.06627.

    ``a`` is the norm, in [norm_min, norm_max] (no gradient outside); ``m(a)`` goes straight from m_min to m_max. Both
    terms' gradients reach the norm. Beyond π the cosine falls on, see ``widened_cosine``; the authors' code drops the
    margin of rows beyond 90°, with a step ("easy margin"), of which the paper does not speak. ``strength`` leaves the
    term of the norm alone.
    """

    def __init__(
        self,
        scale: float = 64.0,
        m_min: float = 0.45,
        m_max: float = 0.8,
        norm_min: float = 10.0,
        norm_max: float = 110.0,
        norm_weight: float = 35.0,
    ) -> None:
        super().__init__()
        self.scale, self.m_min, self.m_max = scale, m_min, m_max
        self.norm_min, self.norm_max, self.norm_weight = norm_min, norm_max, norm_weight

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        along = (norm.clamp(self.norm_min, self.norm_max) - self.norm_min) / (self.norm_max - self.norm_min)
        margin = self.strength * (self.m_min + along * (self.m_max - self.m_min))
        return self.scale * widened_cosine(cosine, 1.0, margin)

    def losses(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> Tensor:
        """Return each row's loss, ``[B]``, the norm's term in it."""
        length = norm.clamp(self.norm_min, self.norm_max)
        return super().losses(cosine, norm, negatives) + self.norm_weight * (1 / length + length / self.norm_max**2)
