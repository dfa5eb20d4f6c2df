"""Losses whose logits keep the embedding's length: the softmax with a bias, and SphereFace's A-Softmax."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.margins.angle import widened_cosine
from arcdist.margins.config import MarginConfig, named, require
from arcdist.margins.protocol import Margin


@dataclass
class UnnormalizedConfig(MarginConfig):
    """A loss without unit embeddings."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        filtered = self.interclass_filter < 1
        require(not filtered, "interclass_filter", self.interclass_filter, f"be 1: {self.name} has no cosines")


@dataclass
class SoftmaxConfig(UnnormalizedConfig):
    """The plain softmax, a fully connected layer with a bias; it has no margin, so ``warmup`` does nothing."""

    name: str = named("softmax")

    def _margin(self, num_classes: int | None, seed: int) -> "Softmax":
        return Softmax()


class Softmax(Margin):
    """``embedding · center + bias`` for every class, equation 1 of arXiv:1801.07698."""

    scale = 1.0
    unit_embeddings = False
    unit_centers = False
    bias = True

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return ``cosine``, which is the inner product here."""
        return cosine


@dataclass
class ASoftmaxConfig(UnnormalizedConfig):
    """SphereFace as it was published: ‖x‖·ψ(m·θ) for the target, ‖x‖·cos θ for every other class."""

    name: str = named("a_softmax")
    m: float = field(default=4.0, metadata={"help": "multiplies the angle"})
    blend: float = field(
        default=1000.0, metadata={"help": "λ at the start: λ parts of cos θ to one of ψ; 0: ψ alone from the start"}
    )
    blend_decay: float = field(default=0.12, metadata={"help": "γ: λ is blend · (1 + γ·step)^−power"})
    blend_power: float = field(default=1.0, metadata={"help": "how fast λ falls"})
    blend_min: float = field(default=5.0, metadata={"help": "where λ stops to fall"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require(1 <= self.m < math.inf, "m", self.m, "be a number of at least 1")
        for key in ("blend", "blend_decay", "blend_power", "blend_min"):
            value = getattr(self, key)
            require(0 <= value < math.inf, key, value, "be a number of at least 0")
        require(self.blend_min <= self.blend, "blend_min", self.blend_min, "be at most margin.blend")

    def _margin(self, num_classes: int | None, seed: int) -> "ASoftmax":
        return ASoftmax(self.m, self.blend, self.blend_decay, self.blend_power, self.blend_min)


class ASoftmax(Margin):
    """``‖x‖ · (λ·cos θ + ψ(m·θ)) / (1 + λ)`` for the target, arXiv:1704.08063.

    Centers are unit rows, embeddings are not. λ falls as in the authors' Caffe layer, from ``blend`` by
    (1 + ``blend_decay`` · step)^−``blend_power`` to ``blend_min``; the first step is step 1, as there. ``m`` need not
    be whole. ``Combined(m1=m)`` is the variant with unit embeddings.
    """

    scale = 1.0
    unit_embeddings = False
    step: Tensor

    def __init__(
        self,
        m: float = 4.0,
        blend: float = 1000.0,
        blend_decay: float = 0.12,
        blend_power: float = 1.0,
        blend_min: float = 5.0,
    ) -> None:
        super().__init__()
        self.m, self.blend, self.blend_decay = m, blend, blend_decay
        self.blend_power, self.blend_min = blend_power, blend_min
        self.register_buffer("step", torch.ones((), dtype=torch.int64))

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``.

        Args:
            cosine: ``[B]``, the inner product with the unit center.
            norm: ``[B]``.
        """
        falling = self.blend * (1 + self.blend_decay * self.step.double()) ** -self.blend_power
        share = self.strength / (1 + falling.clamp_min(self.blend_min))
        length = norm.clamp_min(torch.finfo(norm.dtype).tiny)
        return cosine + share * (norm * widened_cosine(cosine / length, self.m, 0.0) - cosine)

    def end_step(self) -> None:
        """Count the step, on which λ depends."""
        self.step += 1
