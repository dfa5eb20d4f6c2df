"""Which sample of the data set is the n-th of the run.

Every epoch is another permutation of the whole data set: a true global shuffle, not one within a buffer. A shuffled
array of the 42 million samples of WebFace42M would take 170 MB or more in every process and seconds at every epoch's
border. Here nothing is stored: a position is enciphered into a sample by a Feistel network whose domain is the data
set, keyed by (seed, epoch). So the order depends on neither ranks nor workers, and to resume is to know one integer.

Source: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, §5 (generalized Feistel, with
cycle walking).
"""

import math
from dataclasses import dataclass

import numpy as np

from arcdist.errors import ConfigError, DataError
from arcdist.runtime.seeds import hash64, splitmix

_ROUNDS = 8  # four pairs: with two, samples a row of the domain apart are correlated


@dataclass(frozen=True)
class Order:
    """The order of a run over ``size`` samples, epoch after epoch without end."""

    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"the data set has {self.size} samples; a run needs at least one")

    def samples(self, start: int, stop: int) -> np.ndarray:
        """Return the samples at the positions [start, stop) of the run, int64 ``[stop − start]``, in [0, size).

        Position p is the (p mod size)-th of epoch p // size.
        """
        epoch, sample = np.divmod(np.arange(start, stop), self.size)
        first, end = start // self.size, -(-stop // self.size)
        keys = hash64(self.seed, "order", np.arange(first * _ROUNDS, end * _ROUNDS)).reshape(-1, _ROUNDS)
        keys = keys[epoch - first]
        sample = self._encipher(sample.astype(np.uint64), keys)
        # The domain is at most √size too large; what falls outside is enciphered again, which keeps it a permutation.
        while (outside := np.flatnonzero(sample >= self.size)).size:
            sample[outside] = self._encipher(sample[outside], keys[outside])
        return sample.astype(np.int64)

    def substitute(self, position: int, attempt: int) -> int:
        """Return what is tried in the place of the sample at a position, once that cannot be read."""
        return int(hash64(self.seed, f"substitute.{attempt}", position) % np.uint64(self.size))

    def _encipher(self, value: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return a permutation of [0, rows · columns), applied to ``value`` ``[n]``; ``keys`` is ``[n, _ROUNDS]``."""
        columns = math.isqrt(self.size - 1) + 1
        rows = -(-self.size // columns)
        row, column = np.divmod(value, np.uint64(columns))
        for i in range(0, _ROUNDS, 2):
            row = (row + splitmix(column ^ keys[:, i]) % np.uint64(rows)) % np.uint64(rows)
            column = (column + splitmix(row ^ keys[:, i + 1]) % np.uint64(columns)) % np.uint64(columns)
        return row * np.uint64(columns) + column


def rows_of_step(step: int, global_batch_size: int, rank: int, world_size: int) -> range:
    """Return the positions in the run of a rank's rows of a step: the rank-th of equal, contiguous parts.

    Raises:
        ConfigError: the ranks cannot share the global batch equally.
    """
    if global_batch_size < 1 or global_batch_size % world_size:
        raise ConfigError(f"train.global_batch_size: {global_batch_size}: must be a multiple of the {world_size} ranks")
    batch_size = global_batch_size // world_size
    start = step * global_batch_size + rank * batch_size
    return range(start, start + batch_size)
