"""Random numbers that depend on what they are for, never on who draws them.

A draw is a pure function of (seed, purpose, index), where the index is global: a sample of the run, a class, a step.
So no result depends on the number of ranks, workers or restarts, and no state of a generator needs saving. The
function is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) applied to a Weyl sequence.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TO_UNIT = 2.0**-53


def hash64(seed: int, purpose: str, index: int | np.ndarray = 0) -> np.ndarray:
    """Return a 64-bit hash of each index, uint64, of ``index``'s shape.

    Args:
        seed: the run's.
        purpose: keeps the draws of one use apart from those of every other.
        index: integers in [0, 2⁶³).
    """
    key = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        return splitmix(np.asarray(index).astype(np.uint64) * _GOLDEN + np.uint64(int.from_bytes(key, "little")))


def splitmix(value: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finalizer of each value, uint64: a bijection in which every bit depends on every other."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def uniform(seed: int, purpose: str, index: int | np.ndarray) -> np.ndarray:
    """Return a uniform number in [0, 1) for each index, float64, of ``index``'s shape."""
    return (hash64(seed, purpose, index) >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def mix(*parts: int) -> int:
    """Return a seed in [0, 2⁶³) that depends on every part, for a library's own generator."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a CPU generator for draws that torch makes."""
    import torch  # here: processes that decode images do without

    return torch.Generator().manual_seed(int(hash64(seed, purpose, index)) >> 1)
