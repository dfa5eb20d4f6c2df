"""Norms beside the quality of images: against scipy, on images whose quality is known, and by the command."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats

from arcdist.cli.main import main
from arcdist.data.synthetic import SyntheticConfig, render
from arcdist.errors import DataError
from arcdist.evaluate.quality import MEASURES, image_quality, norm_quality


def test_the_correlation_is_scipys_with_ties() -> None:
    random = np.random.default_rng(0)
    norms, qualities = random.integers(0, 9, 53).astype(float), random.integers(0, 7, (53, 3)).astype(float)
    found = norm_quality(norms, qualities)
    for measure, values in zip(MEASURES, qualities.T):
        assert found[measure].spearman == pytest.approx(scipy.stats.spearmanr(values, norms).statistic, abs=1e-12)
    assert np.mean(norms) == pytest.approx(np.average(found["contrast"].norm_by_tenth, weights=[6] * 3 + [5] * 7))


def test_measures_say_what_was_done_to_an_image() -> None:
    image = render(SyntheticConfig(image_size=64), 0, 0)
    plain = image_quality(image)
    assert image_quality(cv2.GaussianBlur(image, (0, 0), 2))[0] < plain[0]
    assert image_quality(image // 2)[1:] == pytest.approx(np.array(plain[1:]) / 2, abs=1)


def test_too_few_images_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="9 norms"):
        norm_quality(np.ones(9), np.ones((9, 3)))
    with pytest.raises(DataError, match="not finite"):
        norm_quality(np.full(10, np.nan), np.ones((10, 3)))


def test_norms_that_follow_blur_are_found_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    face = render(SyntheticConfig(image_size=64), 0, 0)
    for number in range(12):
        cv2.imwrite(str(images / f"{number:02}.png"), cv2.GaussianBlur(face, (0, 0), 0.5 + number / 4))
    np.save(tmp_path / "e.npy", np.eye(12, dtype=np.float32) * np.arange(30, 18, -1)[:, None])
    (tmp_path / "e.tsv").write_text("name\tlabel\n" + "".join(f"{number:02}.png\t\n" for number in range(12)))
    arguments = ["evaluate", f"{tmp_path}/e.npy", "analysis=quality", f"images={images}", f"pictures={tmp_path}"]
    assert main([*arguments, "--json", f"{tmp_path}/q.json"]) == 0
    assert json.loads((tmp_path / "q.json").read_text())["sharpness"]["spearman"] == pytest.approx(1.0)
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", "none.npy", "analysis=quality"]) == 2
    assert "is no file of `arcdist embed`" in capsys.readouterr().err
