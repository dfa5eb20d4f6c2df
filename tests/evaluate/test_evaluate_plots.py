from pathlib import Path

import numpy as np
import pytest

from arcdist.evaluate import plots


def test_running_mean_is_centered_and_leaves_out_what_is_not_finite() -> None:
    mean = plots._running_mean(np.array([1.0, 2.0, np.nan, 4.0, 6.0, np.inf]), half_window=1)
    assert mean.tolist() == [1.5, 1.5, 3.0, 5.0, 5.0, 6.0]


@pytest.mark.parametrize("draw", [plots.roc_curve, plots.det_curve, plots.angle_histogram])
@pytest.mark.parametrize(
    ("genuine", "impostor"),
    [([0.9], [0.1]), ([0.9] * 50, [0.9] * 50), ([1.0, -1.0], [1.0, -1.0]), ([0.1, 0.2], [0.8, 0.9])],
    ids=["one pair each", "all alike", "ends of the range", "reversed"],
)
def test_extreme_scores_are_drawn(draw, genuine: list[float], impostor: list[float], tmp_path: Path) -> None:
    draw(tmp_path / "picture.png", {"set": (np.array(genuine), np.array(impostor))})
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
