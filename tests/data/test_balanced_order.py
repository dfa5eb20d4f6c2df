"""P identities × K images a batch: distinct images where an identity has them, and every identity in turn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.balanced_order import BalancedOrder
from arcdist.data.datasets import RecordDataset
from arcdist.errors import DataError

K = 4


@pytest.fixture(scope="module")
def labels(data_root: Path) -> np.ndarray:
    """Return the labels of the real training set: 1,343 identities of 2 to 530 images."""
    with RecordDataset(data_root / "lfw_train.rec") as dataset:
        return dataset.labels()


def test_a_group_is_of_one_identity_and_repeats_an_image_only_where_it_must(labels: np.ndarray) -> None:
    groups = BalancedOrder(labels, K, 1).samples(0, 5 * 1343 * K).reshape(-1, K)
    identities = labels[groups]
    assert (identities == identities[:, :1]).all()
    counts = np.bincount(labels)[identities[:, 0]]
    distinct = np.array([len(set(group)) for group in groups.tolist()])
    assert (distinct == np.minimum(counts, K)).all()


def test_every_identity_comes_once_in_a_round_and_rounds_differ(labels: np.ndarray) -> None:
    groups = labels[BalancedOrder(labels, K, 1).samples(0, 3 * 1343 * K)].reshape(3, 1343, K)[:, :, 0]
    assert (np.sort(groups) == np.arange(1343)).all()
    assert (groups[0] == groups[1]).mean() < 0.01


def test_all_images_of_an_identity_come_by_before_one_comes_again() -> None:
    labels = np.repeat([0, 1, 2], [8, 4, 3])
    rounds = BalancedOrder(labels, K, 1).samples(0, 4 * 3 * K).reshape(2, -1)  # two, and two more
    first, again = (samples[samples < 8].tolist() for samples in rounds)
    assert sorted(first) == sorted(again) == list(range(8))
    assert first != again


def test_the_order_does_not_depend_on_how_it_is_cut(labels: np.ndarray) -> None:
    order = BalancedOrder(labels, K, 3)
    parts = [order.samples(start, stop) for start, stop in pairwise([5, 6, 6, 80, 83, 9000])]
    assert np.concatenate(parts).tolist() == order.samples(5, 9000).tolist()


def test_the_order_of_a_seed_never_changes() -> None:
    """A run is resumed by another version: its order is part of the format of a checkpoint."""
    samples = BalancedOrder(np.repeat([0, 2, 3], [8, 4, 3]), K, 1).samples(20, 32)
    assert samples.tolist() == [8, 9, 11, 10, 0, 3, 1, 5, 14, 13, 12, 14]


def test_identities_need_not_be_adjacent_nor_every_label_taken() -> None:
    labels = np.array([7, 2, 7, 2, 7, 9])
    groups = labels[BalancedOrder(labels, 2, 0).samples(0, 60)].reshape(-1, 2)
    assert set(groups[:, 0]) == {2, 7, 9}
    assert (groups[:, 0] == groups[:, 1]).all()


def test_images_of_one_identity_alone_are_refused() -> None:
    with pytest.raises(DataError, match=r"^data\.per_identity: all images are of one identity"):
        BalancedOrder(np.full(8, 3), 4, 0)
