"""The order of a run is a true shuffle of every epoch that depends on nothing but seed, size and position."""

from itertools import pairwise

import numpy as np
import pytest

from arcdist.data.order import Order, rows_of_step
from arcdist.errors import ConfigError, DataError

SIZES = (1, 2, 3, 4, 5, 97, 7570)


@pytest.mark.parametrize("size", SIZES)
def test_every_epoch_has_each_sample_once(size: int) -> None:
    epochs = Order(size, 1).samples(0, 3 * size).reshape(3, size)
    assert (np.sort(epochs) == np.arange(size)).all()


def test_epochs_and_seeds_differ() -> None:
    first, second = Order(7570, 1).samples(0, 2 * 7570).reshape(2, -1)
    other = Order(7570, 2).samples(0, 7570)
    assert [(first == another).mean() < 0.01 for another in (second, other)] == [True, True]


@pytest.mark.parametrize("size", SIZES)
def test_the_order_does_not_depend_on_how_it_is_cut(size: int) -> None:
    order = Order(size, 3)
    cuts = [5, 6, 6, 19, 83, 200]
    parts = [order.samples(start, stop) for start, stop in pairwise(cuts)]
    assert np.concatenate(parts).tolist() == order.samples(5, 200).tolist()


def test_a_position_far_into_a_large_run_is_in_range() -> None:
    size = 42_474_558
    samples = Order(size, 1).samples(40 * size - 500, 40 * size + 500)
    assert samples.dtype == np.int64
    assert samples.min() >= 0
    assert samples.max() < size


def test_a_sample_is_equally_likely_at_every_place() -> None:
    size, epochs = 30, 3000
    places = np.argsort(Order(size, 5).samples(0, size * epochs).reshape(epochs, size), axis=1)
    counts = np.stack([np.bincount(places[:, sample], minlength=size) for sample in range(size)])
    expected = epochs / size
    chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2
    assert 0.8 < chi_square < 1.2  # per degree of freedom; its deviation is sqrt(2 / 841), about 0.05


@pytest.mark.parametrize("gap", [1, 2, 9, 10, 11, 50])
def test_places_of_an_epoch_are_independent(gap: int) -> None:
    size, epochs = 100, 5000  # a domain of 10 rows, which the gaps straddle
    samples = Order(size, 3).samples(0, size * epochs).reshape(epochs, size)
    counts = np.bincount((samples[:, gap] - samples[:, 0]) % size, minlength=size)[1:]
    expected = epochs / (size - 1)
    chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 2)
    assert 0.45 < chi_square < 1.7  # per degree of freedom; its deviation is sqrt(2 / 98), about 0.14


def test_the_order_of_a_seed_never_changes() -> None:
    """A run is resumed by another version: its order is part of the format of a checkpoint."""
    border = Order(42_474_557, 2048).samples(42_474_555, 42_474_560)
    assert border.tolist() == [6453911, 2726751, 35226274, 32537108, 38306701]
    assert Order(100, 0).samples(95, 105).tolist() == [93, 67, 9, 81, 94, 43, 74, 18, 73, 39]


def test_neighbors_are_uncorrelated() -> None:
    samples = Order(7570, 3).samples(0, 7570)
    assert abs(np.corrcoef(samples[:-1], samples[1:])[0, 1]) < 5 / np.sqrt(7570)


def test_a_data_set_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="has 0 samples"):
        Order(0, 1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_ranks_rows_are_the_global_batch_in_order(world_size: int) -> None:
    rows = [row for rank in range(world_size) for row in rows_of_step(7, 12, rank, world_size)]
    assert rows == list(range(84, 96))


@pytest.mark.parametrize("global_batch_size", [0, 10])
def test_ranks_that_cannot_share_equally_are_refused(global_batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"global_batch_size: {global_batch_size}: must be a multiple of the 4 ranks"):
        rows_of_step(0, global_batch_size, 0, 4)
