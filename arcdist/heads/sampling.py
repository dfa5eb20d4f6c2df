"""Which classes take part in a step."""

import numpy as np
import torch
from torch import Tensor

from arcdist.runtime import seeds

_GOLDEN, _ROUNDS = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # SplitMix64's
_CPU_BLOCK, _GPU_BLOCK = 1 << 14, 1 << 22  # hashes at a time: what a core's cache holds; 32 MiB


def drawn_rows(labels: Tensor, classes: range, sample_rate: float, seed: int, step: int) -> Tensor:
    """Return the rows of this rank's centers that take part in a step's softmax, int64 ``[S]``, ascending.

    Every class of the batch does; any other is drawn with probability ``sample_rate`` by its own hash of
    (seed, step, class), so that the draw does not depend on which rank holds the class (arXiv:2203.15565 draws a
    fixed count a rank instead).

    Args:
        labels: ``[B]`` int64, of the global batch, global class ids.
        classes: the global ids of this rank's centers; a row is a place in them.
        sample_rate: in (0, 1).

    Cost: a hash and a byte for each of ``classes``. On a GPU the host waits once, to learn ``S``.
    """
    key, threshold = int(seeds.hash64(seed, f"negatives of step {step}")), round(sample_rate * 2**64)
    on_cpu = labels.device.type == "cpu"
    below = _hashes_below if on_cpu else _hashes_below_on_device
    # One flag more than classes: it takes the labels of the other ranks.
    drawn = below(range(classes.start, classes.stop + 1), key, threshold, labels.device)
    row = labels - classes.start
    drawn[torch.where((row >= 0) & (row < len(classes)), row, len(classes))] = True
    drawn = drawn[:-1]
    return torch.from_numpy(np.flatnonzero(drawn.numpy())) if on_cpu else drawn.nonzero().squeeze(1)


def _hashes_below(classes: range, key: int, threshold: int, device: torch.device) -> Tensor:
    """Return whether each class's hash, of 64 bits, is below ``threshold``, bool, on the CPU.

    The hash is SplitMix64 at the class's place in the sequence that begins at ``key``, without its last round: that
    one does not touch the upper bits.
    """
    below = np.empty(len(classes), dtype=bool)
    places = np.arange(_CPU_BLOCK, dtype=np.uint64) * np.uint64(_GOLDEN)
    value, shifted = np.empty_like(places), np.empty_like(places)
    for start in range(0, len(classes), _CPU_BLOCK):
        np.add(places, np.uint64((key + (classes.start + start) * _GOLDEN) % 2**64), out=value)
        for shift, factor in _ROUNDS:
            np.right_shift(value, np.uint64(shift), out=shifted)
            np.bitwise_xor(value, shifted, out=value)
            np.multiply(value, np.uint64(factor), out=value)
        block = below[start : start + _CPU_BLOCK]
        np.less(value[: len(block)], np.uint64(threshold), out=block)
    return torch.from_numpy(below)


def _hashes_below_on_device(classes: range, key: int, threshold: int, device: torch.device) -> Tensor:
    """Return the same on ``device``, by torch, which knows signed numbers only and is slower at it on a CPU."""
    below = torch.empty(len(classes), dtype=torch.bool, device=device)
    for start in range(0, len(classes), _GPU_BLOCK):
        block = below[start : start + _GPU_BLOCK]
        first = classes.start + start
        value = torch.arange(first, first + len(block), device=device).mul_(_signed(_GOLDEN)).add_(_signed(key))
        for shift, factor in _ROUNDS:
            upper = (value >> shift).bitwise_and_((1 << 64 - shift) - 1)  # without the copies of the sign
            value.bitwise_xor_(upper).mul_(_signed(factor))
        # 2⁶³ more on both sides: signed numbers then have the order of the unsigned ones.
        torch.lt(value.add_(_signed(2**63)), _signed(threshold + 2**63), out=block)
    return below


def _signed(value: int) -> int:
    """Return the int64 that has the bits of ``value`` modulo 2⁶⁴."""
    return (value + 2**63) % 2**64 - 2**63
