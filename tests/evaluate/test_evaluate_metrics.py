import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import metrics

# Few distinct values, so that ties are the rule.
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)


def by_sklearn(genuine: list[float], impostor: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = [1] * len(genuine) + [0] * len(impostor)
    return roc_curve(labels, [*genuine, *impostor], drop_intermediate=False)


@given(SCORES, SCORES)
def test_roc_is_that_of_scikit_learn(genuine: list[float], impostor: list[float]) -> None:
    for ours, theirs in zip(metrics.roc(genuine, impostor), by_sklearn(genuine, impostor)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@given(SCORES, SCORES)
def test_auc_is_that_of_scikit_learn(genuine: list[float], impostor: list[float]) -> None:
    labels = [1] * len(genuine) + [0] * len(impostor)
    assert metrics.auc(genuine, impostor) == pytest.approx(roc_auc_score(labels, [*genuine, *impostor]), abs=1e-12)


@given(SCORES, SCORES, st.one_of(st.floats(0, 1), st.integers(0, 30).map(lambda count: count / 30)))
def test_tar_at_far_is_the_best_tar_of_any_allowed_threshold(
    genuine: list[float], impostor: list[float], far: float
) -> None:
    allowed = [
        np.mean(np.array(genuine) >= threshold)
        for threshold in [*genuine, *impostor, np.inf]
        if np.mean(np.array(impostor) >= threshold) <= far
    ]
    assert metrics.tar_at_far(genuine, impostor, far) == pytest.approx(max(allowed), abs=1e-12)


@pytest.mark.parametrize("count", [100, 300, 1000])
def test_a_far_that_is_a_whole_number_of_accepts_allows_that_many(count: int) -> None:
    impostor = np.arange(count, dtype=float)
    for accepts in range(count):
        # One genuine pair above each impostor: TAR counts the impostors that may be accepted.
        tar = metrics.tar_at_far(impostor + 0.5, impostor, accepts / count)
        assert round(tar * count) == min(count, accepts + 1)


@given(SCORES, SCORES)
def test_eer_lies_on_the_roc_where_both_errors_are_equal(genuine: list[float], impostor: list[float]) -> None:
    far, tar, _ = by_sklearn(genuine, impostor)
    value = metrics.eer(genuine, impostor)
    crossings = []
    for far0, tar0, far1, tar1 in zip(far, tar, far[1:], tar[1:]):
        excess0, excess1 = far0 + tar0 - 1, far1 + tar1 - 1
        if excess0 <= 1e-15 and excess1 >= -1e-15:
            share = excess0 / (excess0 - excess1)
            crossings.append(far0 + share * (far1 - far0))
    assert min(abs(value - crossing) for crossing in crossings) < 1e-12


def test_eer_of_scores_without_ties_is_a_point_of_the_roc() -> None:
    assert metrics.eer([9.0, 8.0, 7.0, 2.0], [6.0, 3.0, 1.0, 0.0]) == pytest.approx(1 / 4, abs=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "auc", "eer", "tar"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0, 0.0, 1.0),
        ([0.0], [1.0, 2.0], 0.0, 1.0, 0.0),
        ([5.0] * 3, [5.0] * 4, 0.5, 0.5, 0.0),
    ],
    ids=["separated", "reversed", "all tied"],
)
def test_closed_forms(genuine: list[float], impostor: list[float], auc: float, eer: float, tar: float) -> None:
    assert metrics.auc(genuine, impostor) == auc
    assert metrics.eer(genuine, impostor) == eer
    assert metrics.tar_at_far(genuine, impostor, 0.0) == tar
    assert metrics.tar_at_far(genuine, impostor, 1.0) == 1.0


@pytest.mark.parametrize("bad", [[], [[1.0]], [1.0, float("nan")], [float("inf")]])
def test_scores_that_are_none_or_not_finite_are_refused(bad: list) -> None:
    with pytest.raises(DataError, match="impostor scores"):
        metrics.auc([1.0], bad)


def test_a_far_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"far: 1\.5"):
        metrics.tar_at_far([1.0], [0.0], 1.5)
