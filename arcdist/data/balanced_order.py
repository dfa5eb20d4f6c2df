"""The order of a run in which images of one identity follow each other, for losses over pairs and triplets."""

import numpy as np

from arcdist.data.order import Order
from arcdist.data.permutation import ROUNDS, permuted
from arcdist.errors import DataError
from arcdist.runtime.seeds import hash64, splitmix


class BalancedOrder(Order):
    """Groups of ``per_identity`` images of one identity: P identities × K images in a batch of P·K.

    Every identity comes once, in a shuffled order, before any comes again. The images of one are shuffled too, and cut
    into groups that share none; those that are left over (fewer than K) sit out until the next shuffle. An identity
    with fewer than K images repeats them. A batch in which one round of the identities ends and the next begins may
    have an identity twice.

    An epoch has as many positions as there are images, as without groups, though large identities come less often.

    Args:
        labels: of every sample, int64 ``[n]``.
        per_identity: K.
        seed: the run's.

    Errors: DataError where there is one identity only.

    Memory: 8 bytes an image, 24 an identity.
    """

    def __init__(self, labels: np.ndarray, per_identity: int, seed: int) -> None:
        super().__init__(len(labels), seed)
        self._per_identity = per_identity
        self._by_label = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        self._present = np.flatnonzero(counts)
        if len(self._present) < 2:
            raise DataError("data.per_identity: all images are of one identity; pairs and triplets need at least two")
        self._counts = counts[self._present]
        self._starts = np.cumsum(self._counts) - self._counts
        self._identities = Order(len(self._present), seed, "order.identities")

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at these positions, int64 ``[n]``."""
        group, within = np.divmod(positions, self._per_identity)
        identity = self._identities.at(group)
        count = self._counts[identity]
        visit = group // self._identities.size
        shuffle, place = np.divmod(visit, np.maximum(1, count // self._per_identity))
        image = (place * self._per_identity + within) % count
        own = hash64(self.seed, "order.identity", self._present[identity])
        of_shuffle = hash64(self.seed, "order.shuffle", shuffle[:, None] * ROUNDS + np.arange(ROUNDS))
        return self._by_label[self._starts[identity] + permuted(image, count, splitmix(own[:, None] ^ of_shuffle))]
