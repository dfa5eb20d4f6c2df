"""Photographs become the aligned faces of the field's template, and what has no face is said."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcdist.cli.main import main
from arcdist.data.alignment import TEMPLATE, similarity
from arcdist.errors import DataError
from arcdist.prepare.align import AlignConfig, align
from arcdist.prepare.detectors import DETECTORS
from arcdist.prepare.landmarks import read_landmarks
from arcdist.prepare.mtcnn import _suppress


@pytest.fixture(scope="module")
def photographs(data_root: Path) -> tuple[Path, list[dict]]:
    """Return the folder of photographs, and what is known of each."""
    raw = data_root / "raw"
    return raw, json.loads((raw / "expected.json").read_text())["images"]


def test_a_similarity_is_found_again_also_a_turned_one() -> None:
    angle, scale, shift = 2.9, 0.37, np.array([400.0, -31.5])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(similarity((TEMPLATE - shift) @ np.linalg.inv(turn).T), np.c_[turn, shift], atol=1e-9)


def test_no_similarity_near_the_one_found_is_better() -> None:
    points = TEMPLATE + np.random.default_rng(0).normal(0, 6, (5, 2))
    points[:, 0] *= -1  # a mirror image, which only a reflection would fit

    def cost(matrix: np.ndarray) -> float:
        return float(np.square(points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).sum())

    best = similarity(points)
    assert np.linalg.det(best[:, :2]) > 0
    for d in np.vstack([np.eye(4), -np.eye(4)]) * 1e-3:
        change = np.array([[d[0], -d[1], d[2] * 100], [d[1], d[0], d[3] * 100]])
        assert cost(best + change) > cost(best)


def test_landmarks_of_a_file_give_the_faces_of_the_reference(
    photographs: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    raw, known = photographs
    config = AlignConfig(str(raw / "images"), str(tmp_path), str(raw / "landmarks.txt"), format="png", progress=False)
    assert align(config).aligned == len(known) == 37
    landmarks = read_landmarks(raw / "landmarks.txt")
    for entry in known:
        np.testing.assert_allclose(similarity(landmarks[entry["image"]]), entry["matrix"], atol=1e-5)
        name = Path(entry["image"]).with_suffix(".png").name
        ours, theirs = cv2.imread(str(tmp_path / name)), cv2.imread(str(raw / "aligned" / name))
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() < 2.3 + 0.5, name  # OpenCV's distance from exact bilinear, and one rounding
        assert difference.mean() < 0.25, name


@pytest.mark.parametrize(("detector", "mean_px", "worst_px"), [("mtcnn", 1.0, 2.0), ("yunet", 4.5, 7.0)])
def test_detectors_find_the_face_of_every_photograph(
    photographs: tuple[Path, list[dict]], detector: str, mean_px: float, worst_px: float
) -> None:
    raw, known = photographs
    detect = DETECTORS[detector]("").detect
    distances = {}
    for entry in known:
        image = cv2.imread(str(raw / "images" / entry["image"]))[:, :, ::-1]
        distances[entry["image"]] = min(np.abs(face.landmarks - entry["landmarks"]).mean() for face in detect(image))
        assert distances[entry["image"]] < 8
    easy = [distances[entry["image"]] for entry in known if not entry["hard"]]
    assert np.mean(easy) < mean_px
    assert max(easy) < worst_px


def test_a_box_within_a_better_one_is_dropped_where_the_share_is_of_the_smaller() -> None:
    boxes, scores = np.array([[10.0, 10, 39, 39], [0, 0, 99, 99], [200, 0, 299, 99]]), np.array([0.8, 0.9, 0.7])
    assert _suppress(boxes, scores, 0.7) == [1, 0, 2]
    assert _suppress(boxes, scores, 0.7, of_smaller=True) == [1, 2]


def test_of_two_faces_the_largest_or_the_most_central_is_taken(
    photographs: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    raw, known = photographs
    image = cv2.imread(str(raw / "images" / known[0]["image"]))
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    canvas = np.full((250, 700, 3), 127, np.uint8)
    canvas[:, :250] = image
    canvas[60:185, 288:413] = small
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "two.png"), canvas)
    faces = {}
    for choice in ("largest", "central"):
        config = AlignConfig(str(tmp_path / "in"), str(tmp_path / choice), face=choice, format="png", progress=False)
        report = align(config)
        assert (report.aligned, report.several_faces) == (1, ["two.png"])
        faces[choice] = cv2.imread(str(tmp_path / choice / "two.png"))
    sharpness = {choice: cv2.Laplacian(face, cv2.CV_64F).var() for choice, face in faces.items()}
    assert sharpness["largest"] > 1.2 * sharpness["central"]


def test_what_gives_no_face_is_told_and_resume_keeps_what_is_there(
    photographs: tuple[Path, list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, known = photographs
    (tmp_path / "in" / "a").mkdir(parents=True)
    photograph = (raw / "images" / known[0]["image"]).read_bytes()
    (tmp_path / "in" / "a" / "face.jpg").write_bytes(photograph)
    (tmp_path / "in" / "a" / "cut.jpg").write_bytes(photograph[:2000])
    cv2.imwrite(str(tmp_path / "in" / "a" / "grey.png"), np.full((120, 90, 3), 127, np.uint8))
    command = ["align", str(tmp_path / "in"), str(tmp_path / "out"), "progress=false"]
    assert main([*command, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["images"], report["aligned"], report["no_face"]) == (3, 1, ["a/grey.png"])
    assert report["unreadable"][0].startswith("a/cut.jpg: is damaged")
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == ["face.jpg"]

    (tmp_path / "out" / "a" / "face.jpg").write_bytes(b"kept")
    assert main([*command, "--resume"]) == 0
    assert "0 faces of 3 images, 1 were there" in capsys.readouterr().out
    assert (tmp_path / "out" / "a" / "face.jpg").read_bytes() == b"kept"


def test_faces_inside_of_the_folder_of_photographs_are_not_taken_for_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.full((120, 90, 3), 127, np.uint8))
    (tmp_path / "points.txt").write_text("one.png 30 40 60 40 45 60 35 80 55 80\n")
    monkeypatch.chdir(tmp_path)
    for images, output in ((str(tmp_path), "faces"), (".", str(tmp_path / "faces")), ("../" + tmp_path.name, "faces")):
        report = align(AlignConfig(images, output, str(tmp_path / "points.txt"), format="png", progress=False))
        assert (report.images, report.aligned, report.no_face) == (1, 1, [])


@pytest.mark.parametrize("line", ["a.jpg 1 2 3", "a.jpg " + "5 " * 10, "a.jpg 1 2 3 4 5 6 7 8 9 nan"])
def test_a_line_of_no_landmarks_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "points.txt").write_text(f"# header\n{line}\n")
    with pytest.raises(DataError, match=r"points.txt: line 2"):
        read_landmarks(tmp_path / "points.txt")


def test_photographs_in_a_linked_folder_are_aligned(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    cv2.imwrite(str(tmp_path / "theirs/one.png"), np.full((120, 90, 3), 127, np.uint8))
    (tmp_path / "ours/linked").symlink_to(tmp_path / "theirs")
    (tmp_path / "points.txt").write_text("linked/one.png 30 40 60 40 45 60 35 80 55 80\n")
    report = align(AlignConfig(str(tmp_path / "ours"), str(tmp_path / "faces"), str(tmp_path / "points.txt")))
    assert (report.images, report.aligned) == (1, 1)
    assert (tmp_path / "faces/linked/one.jpg").is_file()
