"""What is computed, and how: the arguments that every implementation shares."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

PRODUCTS = ("fp32", "tf32", "bf16")
IMPLEMENTATIONS = ("auto", "blockwise", "triton")


class Negative(Protocol):
    """How the negatives are scored where that is not ``scale · cosine``; elementwise in the cosine."""

    def logit(self, cosine: Tensor) -> Tensor:
        """Return the logits of a block of cosines, ``[B, n]``; −∞ leaves the denominator."""
        ...

    def slope(self, cosine: Tensor) -> Tensor:
        """Return the logits' derivatives by their cosines, ``[B, n]``."""
        ...


@dataclass(frozen=True)
class Formula:
    """What ``margin_logsumexp`` computes.

    Attributes:
        scale: a negative's logit is ``scale · cosine``.
        negative: scores the negatives instead, where given.
        normalized: whether centers count as unit rows; False takes them as they are.
        subcenters: consecutive rows of ``centers`` that make one class, whose cosine is the largest of theirs
            (sub-center ArcFace, ECCV 2020, section 3.2).
    """

    scale: float
    negative: Negative | None = None
    normalized: bool = True
    subcenters: int = 1


@dataclass(frozen=True)
class Tuning:
    """How it is computed; no value changes the meaning, narrow dtypes cost their own rounding.

    Attributes:
        implementation: blockwise, triton, or auto: triton for float32 and narrower on CUDA, where Triton is installed,
            negatives are scored by ``scale`` alone, and a class has one center of 16·k ≤ 1024 dims; else blockwise.
        block: classes of one block; 0: what suits the device and the batch.
        products: what the matrix products multiply: fp32, tf32 (CUDA) or bf16; sums are float32 in all of them.
        kept_mib: memory for exponentials that the blockwise forward pass keeps for the centers' gradient, which then
            needs one product less; classes beyond it are scored again.
        kept_dtype: dtype of what is kept, None for what the products multiply; bfloat16 halves the memory of float32,
            at a relative error of 5e-4 in the centers' gradient where the products are wider.
    """

    implementation: str = "auto"
    block: int = 0
    products: str = "fp32"
    kept_mib: float = 128.0
    kept_dtype: torch.dtype | None = None
