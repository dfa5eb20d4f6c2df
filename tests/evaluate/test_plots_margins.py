"""Pictures of the losses themselves."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from arcdist.evaluate.plots_margins import decision_boundaries, target_logit_curves, target_logits
from arcdist.margins import Combined
from arcdist.margins.unnormalized import ASoftmax


def test_the_target_logit_is_the_papers() -> None:
    theta = np.linspace(0, np.pi - 0.5, 50)
    np.testing.assert_allclose(target_logits(Combined(m2=0.5), theta), np.cos(theta + 0.5), atol=1e-12)
    np.testing.assert_allclose(target_logits(Combined(m2=0, m3=0.35), theta), np.cos(theta) - 0.35, atol=1e-12)


def test_curves_are_drawn_and_told_by_whole_degree(tmp_path: Path) -> None:
    told = target_logit_curves(tmp_path / "a.png", {"ArcFace": Combined(m2=0.5), "A-Softmax": ASoftmax()})
    assert len(told["ArcFace"]) == 181
    assert told["ArcFace"][60] == pytest.approx(np.cos(np.pi / 3 + 0.5), abs=1e-6)
    assert min(cv2.imread(str(tmp_path / "a.png")).shape[:2]) > 500


def test_boundaries_are_drawn_as_svg_too(tmp_path: Path) -> None:
    decision_boundaries(tmp_path / "b.svg", {"ArcFace": Combined(m2=0.5)})
    assert (tmp_path / "b.svg").read_text().lstrip().startswith("<?xml")
