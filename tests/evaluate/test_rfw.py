from pathlib import Path

import numpy as np
import pytest

from arcdist.errors import DataError
from arcdist.evaluate.group_errors import errors_at_one_threshold
from arcdist.evaluate.rfw import group_spread, read_rfw_pairs


def test_pairs_are_read_to_their_description(tmp_path: Path) -> None:
    (tmp_path / "African_pairs.txt").write_text("m.0h1crds\t2\t3\nm.04zxpvp\t2\tm.03ggz1\t5\n")
    pairs, same = read_rfw_pairs(tmp_path / "African_pairs.txt")
    assert pairs == [
        ("m.0h1crds/m.0h1crds_0002.jpg", "m.0h1crds/m.0h1crds_0003.jpg"),
        ("m.04zxpvp/m.04zxpvp_0002.jpg", "m.03ggz1/m.03ggz1_0005.jpg"),
    ]
    assert same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m.1 2 3", "pairs.txt:2: 'm.1 2 3'; "),
        ("m.1\t2\t3\t4\t5", "pairs.txt:2: "),
        ("m.1\ttwo\t3", "pairs.txt:2: image number is 'two'"),
        ("m.1\t2\tm.1\t3", "pairs.txt:2: m.1 twice, in a line for two people"),
    ],
)
def test_bad_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "pairs.txt").write_text(f"m.1\t1\t2\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_rfw_pairs(tmp_path / "pairs.txt")


def test_the_spread_of_a_published_row() -> None:
    """Microsoft's service in the paper's table: 87.60, 82.83, 79.67, 75.83."""
    spread = group_spread({"Caucasian": 0.8760, "Indian": 0.8283, "Asian": 0.7967, "African": 0.7583})
    assert spread.mean == pytest.approx(0.814825)
    assert spread.error_ratio == pytest.approx(24.17 / 12.40)
    assert spread.std == pytest.approx(spread.std_unbiased * (3 / 4) ** 0.5)
    assert spread.std == pytest.approx(0.04315, abs=5e-6)


def test_groups_without_errors_or_alone() -> None:
    assert group_spread({"A": 1.0, "B": 0.9}).error_ratio == float("inf")
    with pytest.raises(DataError, match="at least two groups"):
        group_spread({"A": 0.9})
    with pytest.raises(DataError, match=r"each in \[0, 1\]"):
        group_spread({"A": 99.8, "B": 99.7})


def test_a_pair_at_the_shared_threshold_is_refused_in_every_group() -> None:
    scores = {"A": (np.array([0.5, 0.9]), np.array([0.5, 0.1])), "B": (np.array([0.4, 0.6]), np.array([0.2, 0.3]))}
    found = errors_at_one_threshold(scores, 0.0)
    assert found.threshold == 0.5
    assert [(each.false_accepts, each.false_rejects) for each in found.groups.values()] == [(0, 0.5), (0, 0.5)]
