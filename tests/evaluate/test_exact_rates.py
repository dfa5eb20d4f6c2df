import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve
from support import run_ranks

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import exact_rates, metrics, scores
from arcdist.evaluate.exact_rates import Rates, all_to_all, rates, tar_at_nearest_far
from arcdist.evaluate.metrics import false_accepts_allowed

# Few distinct values, so that ties are the rule.
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)
FARS = st.lists(
    st.one_of(st.floats(0, 1), st.integers(0, 30).map(lambda n: n / 30)), min_size=1, max_size=4, unique=True
)


@given(SCORES, SCORES, FARS)
def test_tar_is_that_of_metrics(genuine: list[float], impostor: list[float], fars: list[float]) -> None:
    found = rates(genuine, impostor, fars)
    assert found.tar_at_far == {far: metrics.tar_at_far(genuine, impostor, far) for far in fars}
    for far in fars:
        assert np.mean(np.array(genuine) > found.thresholds[far]) == found.tar_at_far[far]
        assert sum(score > found.thresholds[far] for score in impostor) <= found.false_accepts[far]


@given(SCORES, SCORES, FARS)
def test_the_highest_impostor_scores_are_enough(genuine: list[float], impostor: list[float], fars: list[float]) -> None:
    held = min(false_accepts_allowed(max(fars), len(impostor)) + 1, len(impostor))
    highest = sorted(impostor, reverse=True)[:held]
    assert rates(genuine, highest, fars, of_impostors=len(impostor)) == rates(genuine, impostor, fars)


@given(st.integers(1, 500), st.integers(0, 500))
def test_a_far_that_is_a_whole_number_of_accepts_allows_that_many(impostor: int, accepts: int) -> None:
    accepts = min(accepts, impostor)
    assert false_accepts_allowed(accepts / impostor, impostor) == accepts


@given(SCORES, SCORES, FARS)
def test_the_nearest_vertex_is_that_of_insightface(
    genuine: list[float], impostor: list[float], fars: list[float]
) -> None:
    far, tar, _ = roc_curve([1] * len(genuine) + [0] * len(impostor), [*genuine, *impostor])
    far, tar = np.flipud(far), np.flipud(tar)
    for target, (our_tar, our_far) in tar_at_nearest_far(genuine, impostor, fars).items():
        vertex = min(zip(np.abs(far - target), range(len(far))))[1]
        assert (our_tar, our_far) == pytest.approx((tar[vertex], far[vertex]), abs=1e-12)


def test_a_pair_that_no_threshold_accepts_is_never_found() -> None:
    assert rates([-np.inf, 2.0], [1.0], [1.0]).tar_at_far == {1.0: 0.5}


def images(count: int, people: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Return embeddings around a center for each person, and whose they are, out of order."""
    random = np.random.default_rng(seed)
    labels = random.integers(people, size=count)
    centers = random.normal(size=(people, 6))
    return torch.from_numpy(centers[labels] + 0.7 * random.normal(size=(count, 6))), 10 * labels


def all_to_all_plainly(embeddings: torch.Tensor, labels: np.ndarray, fars: list[float]) -> Rates:
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()
    genuine, impostor = [], []
    for i, j in itertools.combinations(range(len(labels)), 2):
        (genuine if labels[i] == labels[j] else impostor).append(unit[i] @ unit[j])
    tar = {far: metrics.tar_at_far(genuine, impostor, far) for far in fars}
    return Rates(tar, {}, {}, len(genuine), len(impostor))


@pytest.mark.parametrize(("count", "people", "block"), [(60, 9, 7), (49, 2, 7), (30, 25, 2048)])
def test_all_to_all_is_that_of_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, count: int, people: int, block: int
) -> None:
    monkeypatch.setattr(scores, "BLOCK", block)
    embeddings, labels = images(count, people)
    fars = [0.0, 1e-3, 1e-2, 0.1, 0.5]
    found, plain = all_to_all(embeddings, labels, fars), all_to_all_plainly(embeddings, labels, fars)
    assert found.tar_at_far == pytest.approx(plain.tar_at_far, abs=1e-12)
    assert (found.genuine, found.impostor) == (plain.genuine, plain.impostor)


def test_one_image_twice_under_two_names_is_a_tie_that_nobody_wins() -> None:
    embeddings = torch.eye(4)[[0, 0, 1, 1]]
    assert all_to_all(embeddings, [0, 0, 1, 2], [0.0]).tar_at_far == {0.0: 0.0}
    assert all_to_all(embeddings, [0, 0, 1, 1], [0.0]).tar_at_far == {0.0: 1.0}


def _all_to_all() -> Rates:
    scores.BLOCK = 7
    return all_to_all(*images(60, 9), [1e-3, 0.1])


def test_all_to_all_does_not_depend_on_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BLOCK", 7)
    alone = _all_to_all()
    assert run_ranks(_all_to_all, 3) == [alone] * 3


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["all genuine", "all impostor"])
def test_lists_of_one_kind_are_refused(labels: list[int]) -> None:
    with pytest.raises(DataError, match="genuine and . impostor pairs; both are needed"):
        all_to_all(torch.eye(3), labels)


def test_an_embedding_that_is_no_number_is_refused() -> None:
    embeddings, labels = images(20, 4)
    embeddings[3] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        all_to_all(embeddings, labels)


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0, 1.0], ["a", "b", "b"]])
def test_labels_that_are_not_an_integer_an_image_are_refused(labels: list) -> None:
    with pytest.raises(DataError, match="3 integers are needed"):
        all_to_all(torch.eye(3), labels)


def test_a_far_that_would_hold_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_rates, "MOST_HELD", 10)
    with pytest.raises(ConfigError, match="ask for a FAR of at most"):
        all_to_all(*images(20, 4), [0.5])
    with pytest.raises(ConfigError, match=r"far: 1\.5"):
        all_to_all(*images(20, 4), [1.5])


def test_too_few_impostor_scores_are_refused() -> None:
    with pytest.raises(DataError, match="needs the 11 highest of 100 impostor scores, of which 2 were given"):
        rates([1.0], [0.5, 0.4], [0.1], of_impostors=100)


@pytest.mark.parametrize("bad", [[], [[1.0]], [1.0, float("nan")], [float("inf")]])
def test_scores_that_are_none_or_no_numbers_are_refused(bad: list) -> None:
    with pytest.raises(DataError, match="impostor scores"):
        rates([1.0], bad, [0.1])
