import numpy as np
import pytest
import torch

from arcdist.evaluate.pair_sample import cosines_of, sample_pairs

LABELS = np.array([3, 1, 3, 1, 3, 9, 1, 1, 4, 9])  # 3 and 6 and 1 genuine pairs


def test_few_genuine_pairs_come_once_each() -> None:
    genuine, _ = sample_pairs(LABELS, count=10)
    assert len(genuine) == len({frozenset(pair) for pair in genuine.tolist()}) == 10
    assert (LABELS[genuine[:, 0]] == LABELS[genuine[:, 1]]).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_pairs_are_drawn_evenly_of_all_pairs_of_their_kind(kind: int) -> None:
    labels = np.repeat([5, 2, 8, 7], [2, 3, 5, 1])
    drawn = sample_pairs(labels, count=40_000, seed=1)[kind] if kind else _many_genuine(labels)
    assert ((labels[drawn[:, 0]] == labels[drawn[:, 1]]) == (kind == 0)).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    first, second = np.sort(drawn, 1).T
    of_each = np.bincount(first * len(labels) + second)
    of_each = of_each[of_each > 0]
    possible = [(labels[i] == labels[j]) == (kind == 0) for i in range(len(labels)) for j in range(i)]
    assert len(of_each) == sum(possible)
    assert of_each == pytest.approx(len(drawn) / len(of_each), rel=0.15)


def _many_genuine(labels: np.ndarray) -> np.ndarray:
    """Return many draws of a few genuine pairs, fewer than there are."""
    return np.concatenate([sample_pairs(labels, count=10, seed=seed)[0] for seed in range(2_000)])


def test_a_kind_without_a_pair_is_empty() -> None:
    assert [len(pairs) for pairs in sample_pairs([1, 1, 1])] == [3, 0]
    assert [len(pairs) for pairs in sample_pairs([1, 2, 3], count=7)] == [0, 7]


def test_cosines_are_those_of_unit_rows() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    assert cosines_of(embeddings, np.array([[0, 1], [2, 0]])) == pytest.approx([2**-0.5, 0])
    assert len(cosines_of(embeddings, np.empty((0, 2), np.int64))) == 0
