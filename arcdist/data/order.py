"""Which sample of the data set is the n-th of the run.

Every epoch is another permutation of the whole data set: a true global shuffle, not one within a buffer. A shuffled
array of the 42 million samples of WebFace42M would take 170 MB or more in every process and seconds at every epoch's
border. Here nothing is stored: a position is enciphered into a sample by a permutation keyed by (seed, epoch). So the
order depends on neither ranks nor workers, and to resume is to know one integer.
"""

import numpy as np

from arcdist.data.permutation import ROUNDS, permuted
from arcdist.errors import ConfigError, DataError
from arcdist.runtime.seeds import hash64


class Order:
    """The order of a run over ``size`` samples, epoch after epoch without end.

    Args:
        size: number of samples.
        seed: the run's.
        purpose: keeps several orders of one run apart.
    """

    def __init__(self, size: int, seed: int, purpose: str = "order") -> None:
        if size < 1:
            raise DataError(f"the data set has {size} samples; a run needs at least one")
        self.size, self.seed, self._purpose = size, seed, purpose

    @property
    def epoch_size(self) -> int:
        """The number of positions of an epoch."""
        return self.size

    def samples(self, start: int, stop: int) -> np.ndarray:
        """Return the samples at the positions [start, stop) of the run, int64 ``[stop − start]``, in [0, size)."""
        return self.at(np.arange(start, stop))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at these positions, int64 ``[n]``; p is the (p mod size)-th of epoch p // size."""
        if len(positions) == 0:
            return positions
        epoch, value = np.divmod(positions, self.size)
        met, which = np.unique(epoch, return_inverse=True)  # weights may spread few positions over many epochs
        keys = hash64(self.seed, self._purpose, met[:, None] * ROUNDS + np.arange(ROUNDS))
        return permuted(value, self.size, keys[which])

    def substitute(self, position: int, attempt: int) -> int:
        """Return what is tried in the place of the sample at a position, once that cannot be read."""
        return int(hash64(self.seed, f"substitute.{attempt}", position) % np.uint64(self.size))


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
