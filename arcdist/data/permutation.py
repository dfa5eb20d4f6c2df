"""Pseudo-random permutations that are computed, not stored: a value is enciphered by a Feistel network over [0, size).

Source: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, §5 (generalized Feistel, with
cycle walking).
"""

import numpy as np

from arcdist.runtime.seeds import splitmix

ROUNDS = 8  # four pairs: with two, samples a row of the domain apart are correlated


def permuted(value: np.ndarray, size: "int | np.ndarray", keys: np.ndarray) -> np.ndarray:
    """Return the place of each value in a permutation of its own [0, size), int64 ``[n]``.

    Args:
        value: int64 ``[n]``, in [0, size).
        size: of the domain, one for all values or one for each.
        keys: uint64 ``[n, ROUNDS]``; values of one size and the same keys are of the same permutation.
    """
    size = np.broadcast_to(np.asarray(size, np.uint64), value.shape)
    value = _enciphered(value.astype(np.uint64), size, keys)
    # The domain is at most √size too large; what falls outside is enciphered again, which keeps it a permutation.
    while (outside := np.flatnonzero(value >= size)).size:
        value[outside] = _enciphered(value[outside], size[outside], keys[outside])
    return value.astype(np.int64)


def _enciphered(value: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the values in a permutation of [0, rows · columns), the smallest near-square that holds the domain."""
    columns = np.sqrt(size - np.uint64(1)).astype(np.uint64) + np.uint64(1)  # exact for sizes below 2**52
    rows = (size + columns - np.uint64(1)) // columns
    row, column = np.divmod(value, columns)
    for i in range(0, ROUNDS, 2):
        row = (row + splitmix(column ^ keys[:, i]) % rows) % rows
        column = (column + splitmix(row ^ keys[:, i + 1]) % columns) % columns
    return row * columns + column
