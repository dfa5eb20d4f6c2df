"""Angles and distances whose gradients are finite everywhere."""

import math
from typing import Any

import torch
from torch import Tensor


def angle(cosine: Tensor) -> Tensor:
    """Return arccos(cosine) in radians, of ``cosine``'s shape; cosines beyond ±1 by rounding count as ±1."""
    result: Tensor = _Angle.apply(cosine)
    return result


class _Angle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cosine: Tensor) -> Tensor:
        cosine = cosine.clamp(-1, 1)
        # What a cosine depends on turns it by sin θ a unit, so where both vanish the product stays bounded.
        sine = ((1 - cosine) * (1 + cosine)).sqrt().clamp_min(math.sqrt(torch.finfo(cosine.dtype).eps))
        ctx.save_for_backward(sine)
        return cosine.arccos()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (sine,) = ctx.saved_tensors
        return -gradient / sine


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Euclidean distance of every row of ``left [n, D]`` to every row of ``right``, ``[n, m]``."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1)
    return (squares - 2 * left @ right.T).clamp_min(0)


def at_least_eps(values: Tensor) -> Tensor:
    """Return ``values``, but where they are below their dtype's epsilon that, with a gradient of 0."""
    return values.clamp_min(torch.finfo(values.dtype).eps)
