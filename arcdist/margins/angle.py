"""The cosine of a widened angle, falling at every angle and with a finite slope."""

import math
from typing import Any

import torch
from torch import Tensor


def widened_cosine(cosine: Tensor, m1: float, m2: float | Tensor) -> Tensor:
    """Return ψ(m1·θ + m2) for θ = arccos(cosine), of ``cosine``'s shape and dtype.

    ψ is the cosine in [0, π]. Beyond π a cosine would rise again and reward a larger angle; SphereFace's
    ``(−1)^k cos φ − 2k`` for φ in [kπ, (k+1)π] (arXiv:1704.08063, equation 6) falls on, without a step in the value
    or in the slope.

    The slopes are in closed form: exact, and finite also at ±1, where arccos has none.

    Args:
        cosine: beyond ±1 by rounding counts as ±1.
        m2: in radians; a tensor of ``cosine``'s shape has a gradient too.
    """
    widened: Tensor = _WidenedCosine.apply(cosine, m1, m2)
    return widened


class _WidenedCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cosine: Tensor, m1: float, m2: float | Tensor) -> Tensor:
        cosine = cosine.clamp(-1, 1)
        angle = m1 * cosine.arccos() + m2
        half_turns = (angle / math.pi).floor()
        # dψ/dφ = −|sin φ|, dψ/dcos θ = m1·|sin φ| / sin θ. What cosine depends on turns by sin θ a unit, so the product
        # of the two stays bounded.
        fall = angle.sin().abs()
        sine = ((1 - cosine) * (1 + cosine)).sqrt().clamp_min(math.sqrt(torch.finfo(cosine.dtype).eps))
        ctx.save_for_backward(m1 * fall / sine, fall)
        return (1 - 2 * (half_turns % 2)) * angle.cos() - 2 * half_turns

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None]:
        slope, fall = ctx.saved_tensors
        return gradient * slope, None, -gradient * fall if ctx.needs_input_grad[2] else None
