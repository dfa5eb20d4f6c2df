"""The draw is a function of seed, step and class alone, and costs a byte a class."""

import tracemalloc

import numpy as np
import pytest
import torch

from arcdist.heads import sampling
from arcdist.heads.sampling import drawn_rows
from arcdist.runtime import seeds

NOBODY = torch.empty(0, dtype=torch.int64)


def test_the_ranks_draw_what_one_rank_would() -> None:
    labels = torch.tensor([0, 7, 19_999, 20_000, 49_999, 7])
    shards = (range(20_000), range(20_000, 20_000), range(20_000, 20_001), range(20_001, 50_000))
    parts = [drawn_rows(labels, shard, 0.2, 3, 11) + shard.start for shard in shards]
    assert torch.equal(torch.cat(parts), drawn_rows(labels, range(50_000), 0.2, 3, 11))


def test_rows_ascend_and_hold_every_class_of_the_batch_and_the_asked_share_of_the_others() -> None:
    labels = torch.arange(0, 10_000, 1000)
    rows = drawn_rows(labels, range(10_000), 0.1, 1, 5)
    assert rows.dtype == torch.int64
    assert (rows.diff() > 0).all()
    assert torch.isin(labels, rows).all()
    assert abs(len(rows) - 1009) < 5 * 30


def test_draws_of_neighbors_steps_and_seeds_are_independent() -> None:
    count, rate = 200_000, 0.1

    def drawn(seed: int, step: int) -> torch.Tensor:
        mask = torch.zeros(count, dtype=torch.bool)
        mask[drawn_rows(NOBODY, range(count), rate, seed, step)] = True
        return mask

    one = drawn(0, 0)
    for other in (one.roll(1), drawn(0, 1), drawn(1, 0), drawn(0, 1).roll(1)):
        both = int((one & other).sum())
        assert abs(both - count * rate**2) < 5 * (count * rate**2) ** 0.5


@pytest.mark.parametrize("share", [2**-7, 0.5, 1 - 2**-7])
def test_every_share_is_met(share: float) -> None:
    rows = drawn_rows(NOBODY, range(1_000_000), share, 0, 0)
    assert abs(len(rows) - 1_000_000 * share) < 5 * (1_000_000 * share * (1 - share)) ** 0.5


def test_the_device_draws_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_GPU_BLOCK", 1000)
    for first, rate in ((0, 0.1), (2**40 + 3, 0.5), (123, 0.9)):
        key, threshold = int(seeds.hash64(first, "a")), round(rate * 2**64)
        where = (range(first, first + 20_001), key, threshold, torch.device("cpu"))
        assert torch.equal(sampling._hashes_below_on_device(*where), sampling._hashes_below(*where))


def test_the_draws_of_a_seed_never_change() -> None:
    """A run is resumed by another version: what is drawn is part of the format of a checkpoint."""
    assert drawn_rows(NOBODY, range(100), 0.1, 7, 3).tolist() == GOLDEN_ROWS


GOLDEN_ROWS = [5, 14, 16, 22, 30, 32, 33, 34, 48, 54, 75]


def test_a_draw_takes_memory_for_a_byte_a_class_and_for_its_rows() -> None:
    count = 2_000_000
    tracemalloc.start()
    rows = drawn_rows(NOBODY, range(count), 0.01, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count + 2 * rows.nbytes + 1e6


def test_a_rank_without_classes_draws_nothing() -> None:
    assert drawn_rows(torch.tensor([3]), range(9, 9), 0.5, 0, 0).shape == (0,)


def test_the_hash_is_splitmix_but_for_its_last_round() -> None:
    classes, key = range(50, 20_050), int(seeds.hash64(0, "a"))
    index = np.arange(classes.start, classes.stop, dtype=np.uint64)
    whole = seeds.splitmix(index * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key))
    expected = whole >> np.uint64(33) < np.uint64(0.3 * 2**31)  # the upper bits decide
    threshold = int(0.3 * 2**31) << 33
    assert np.array_equal(sampling._hashes_below(classes, key, threshold, torch.device("cpu")).numpy(), expected)
