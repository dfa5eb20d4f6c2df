"""Rounding to bfloat16 that is right on average."""

import torch
from torch import Tensor

_LOW = 0xFFFF  # the bits of a float32 that a bfloat16 does not have
_GOLDEN = 0x9E3779B97F4A7C15  # 2⁶⁴ by the golden ratio: multiples of it are far apart
_FACTORS = (-49064778989728563, -4265267296055464877)  # MurmurHash3's


def round_stochastically(value: Tensor, key: int, rows: Tensor) -> Tensor:
    """Return ``value`` as bfloat16, each element rounded up or down with the probability that keeps its mean.

    To the nearest, a weight never moves by steps of less than 1/512 of itself, and training with bfloat16 weights
    comes to a halt; so it moves by the mean of its steps.

    Args:
        value: ``[n, D]`` float32, finite.
        key: of the draw; the same key, row and column give the same draw.
        rows: ``[n]`` int64, which row each is, so that a draw does not depend on how rows are shared out.

    Memory: two int32 tensors of the shape of ``value``.
    """
    dim = value.shape[1]
    noise = _draws(rows + key * _GOLDEN % 2**63, -(-dim // 4)).view(torch.uint16)[:, :dim]
    # The upper half of a float32 is a bfloat16; a carry out of the lower half makes it the next one.
    bits = noise.to(torch.int32).add_(value.contiguous().view(torch.int32))
    return bits.bitwise_and_(~_LOW).view(torch.float32).to(torch.bfloat16)


def _draws(rows: Tensor, count: int) -> Tensor:
    """Return ``[n, count]`` int64 of random bits, a sequence a row: sums of a constant, mixed as by MurmurHash3."""
    starts = _folded(_folded(rows) * _FACTORS[0]) * _FACTORS[1]
    sums = _folded(starts)[:, None] + torch.arange(count, device=rows.device) * (_GOLDEN - 2**64)
    return _folded(_folded(sums).mul_(_FACTORS[0]))


def _folded(value: Tensor) -> Tensor:
    return value ^ (value >> 33).bitwise_and_(0x7FFFFFFF)  # without the sign, which a shift spreads
