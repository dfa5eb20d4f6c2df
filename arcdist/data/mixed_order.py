"""The order of a run over several sets of images, of which each comes as often as its weight says."""

from collections.abc import Sequence

import numpy as np

from arcdist.data.order import Order
from arcdist.errors import DataError


class MixedOrder(Order):
    """A true shuffle of all sets in which an epoch has ``weight`` visits to each image of a set.

    An epoch has ``round(weight · images)`` places for a set, and all places are shuffled together. A set fills its own
    with its images in an order of its own, which goes on from epoch to epoch: no image of it comes again before each
    has come. So with weight 2 an epoch has every image twice; with weight 0.5 two epochs have every image once.

    Args:
        sizes: images of each set; their samples follow each other.
        weights: visits to each image in an epoch, one a set, above 0.
        seed: the run's.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        super().__init__(sum(sizes), seed)
        places = [round(weight * size) for weight, size in zip(weights, sizes, strict=True)]
        if 0 in places:
            empty = places.index(0)
            raise DataError(
                f"data.weights: {weights[empty]:g} of the {sizes[empty]} images of set {empty} of data.path is none in "
                "an epoch; give more, or leave the set out"
            )
        self._places = np.cumsum([0, *places])
        self._starts = np.cumsum([0, *sizes])
        self._epoch = Order(sum(places), seed, "order.mixed")
        self._sets = [Order(size, seed, f"order.set.{number}") for number, size in enumerate(sizes)]

    @property
    def epoch_size(self) -> int:
        """The number of positions of an epoch: the weights times the images."""
        return self._epoch.size

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at these positions, int64 ``[n]``."""
        place = self._epoch.at(positions)
        number = np.searchsorted(self._places, place, side="right") - 1
        found = np.empty(len(positions), np.int64)
        for i, order in enumerate(self._sets):
            here = np.flatnonzero(number == i)
            visits_before = positions[here] // self.epoch_size * (self._places[i + 1] - self._places[i])
            found[here] = self._starts[i] + order.at(visits_before + place[here] - self._places[i])
        return found
