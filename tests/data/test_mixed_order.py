"""Several sets in one run: each comes as often as its weight says, and the order is as pure a function as one set's."""

from itertools import pairwise

import numpy as np
import pytest

from arcdist.data.mixed_order import MixedOrder
from arcdist.errors import DataError

SIZES = [30, 7, 100]


def test_an_epoch_visits_every_image_as_often_as_its_weight_says() -> None:
    order = MixedOrder(SIZES, [1, 3, 2], seed=5)
    assert order.epoch_size == 30 + 21 + 200
    for epoch in range(3):
        counts = np.bincount(order.samples(epoch * 251, (epoch + 1) * 251), minlength=137)
        assert counts.tolist() == [1] * 30 + [3] * 7 + [2] * 100


def test_a_set_of_half_the_weight_comes_whole_in_two_epochs_without_a_repeat() -> None:
    order = MixedOrder(SIZES, [0.5, 1, 0.25], seed=5)
    assert order.epoch_size == 15 + 7 + 25
    epochs = order.samples(0, 4 * 47).reshape(4, 47)
    first, other = (epochs[i][epochs[i] < 30] for i in (0, 1))
    assert sorted([*first, *other]) == list(range(30))
    assert sorted(epochs[epochs >= 37]) == list(range(37, 137))


def test_the_sets_are_shuffled_among_each_other_and_each_within_itself() -> None:
    samples = MixedOrder([5000, 5000], [1, 1], seed=2).samples(0, 10_000)
    from_second = samples >= 5000
    assert 0.47 < from_second[:5000].mean() < 0.53
    assert abs(np.corrcoef(samples[~from_second][:-1], samples[~from_second][1:])[0, 1]) < 0.07


def test_the_order_does_not_depend_on_how_it_is_cut() -> None:
    order = MixedOrder(SIZES, [1, 2.5, 0.3], seed=3)
    parts = [order.samples(start, stop) for start, stop in pairwise([5, 6, 6, 80, 83, 400])]
    assert np.concatenate(parts).tolist() == order.samples(5, 400).tolist()


def test_the_order_of_a_seed_never_changes() -> None:
    """A run is resumed by another version: its order is part of the format of a checkpoint."""
    samples = MixedOrder([5, 9], [2.0, 0.5], 1).samples(10, 24)
    assert samples.tolist() == [0, 13, 1, 0, 3, 0, 1, 12, 1, 9, 3, 10, 0, 6]


def test_a_weight_that_leaves_nothing_of_a_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.weights: 0\.01 of the 7 images of set 1 of data\.path is none"):
        MixedOrder(SIZES, [1, 0.01, 1], seed=0)


def test_a_large_weight_costs_no_memory_for_the_visits_in_between() -> None:
    samples = MixedOrder([10, 5], [1e6, 1], 0).samples(0, 64)
    assert samples.min() >= 0
    assert samples.max() < 15
