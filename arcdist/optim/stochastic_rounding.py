"""Rounding to bfloat16 that is right on average."""

import torch
from torch import Tensor

_LOW = 0xFFFF  # the bits of a float32 that a bfloat16 does not have


def round_stochastically(value: Tensor, key: int, rows: Tensor) -> Tensor:
    """Return ``value`` as bfloat16, each element rounded up or down with the probability that keeps its mean.

    To the nearest, a weight never moves by steps of less than 1/512 of itself, and training with bfloat16 weights
    comes to a halt; so it moves by the mean of its steps.

    Args:
        value: ``[n, D]`` float32, finite.
        key: of the draw; the same key, row and column give the same draw.
        rows: ``[n]`` int64, which row each is, so that a draw does not depend on how rows are shared out.

    Memory: an int32 tensor of the shape of ``value``.
    """
    bits = value.contiguous().view(torch.int32)
    column = torch.arange(value.shape[1], dtype=torch.int64, device=value.device)
    noise = _mixed(_mixed(rows + key)[:, None] + column).bitwise_and_(_LOW).to(torch.int32)
    # The upper half of a float32 is a bfloat16; a carry out of the lower half makes it the next one.
    return (bits + noise).bitwise_and_(~_LOW).view(torch.float32).to(torch.bfloat16)


def _mixed(value: Tensor) -> Tensor:
    """Return int64 whose bits all depend on all bits of ``value`` (MurmurHash3's last steps)."""
    for factor in (-49064778989728563, -4265267296055464877):
        value = (value ^ (value >> 33)) * factor
    return value ^ (value >> 33)
