"""The galleries are NIST's own where they are at hand; the texts are made to insightface's description."""

from pathlib import Path

import numpy as np
import pytest

from arcdist.errors import DataError
from arcdist.evaluate.ijb_lists import (
    People,
    read_faces,
    read_gallery,
    read_matches,
    read_nist_faces,
    read_probes,
    read_template_pairs,
)

HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"
POINTS = "46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648"


def write(folder: Path, name: str, *lines: str, end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


@pytest.mark.parametrize(("name", "first", "templates"), [("G1", (1, 1), 3), ("G2", (949, 12444), 10)])
def test_galleries_of_nist_are_read(data_root: Path, name: str, first: tuple[int, int], templates: int) -> None:
    path = data_root / "protocols" / "ijb" / f"ijbc_1N_gallery_{name}.sample.csv"
    faces, gallery = read_nist_faces(path), read_gallery(path)
    assert (len(faces.template), len(gallery.template)) == (40, templates)
    assert (faces.template[0], faces.subject[0]) == first
    assert (gallery.template[0], gallery.subject[0]) == first
    assert gallery.template.tolist() == sorted(set(faces.template.tolist()))
    assert len(gallery.subject) == len(set(gallery.subject.tolist()))


def test_the_first_face_of_g1_is_as_it_stands_in_the_file(data_root: Path) -> None:
    path = data_root / "protocols" / "ijb" / "ijbc_1N_gallery_G1.sample.csv"
    faces = read_nist_faces(path)
    assert (faces.images[0], faces.sighting[0]) == ("img/116262.jpg", 69544)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_faces_of_insightface_are_read(tmp_path: Path, end: str) -> None:
    tid_mid = write(tmp_path, "tid_mid.txt", "1.jpg 1 69544", "2.jpg 1 3720", end=end)
    landmarks = write(tmp_path, "points.txt", f"1.jpg {POINTS} 0.999", f"2.jpg {POINTS} 0.125", end=end)
    faces = read_faces(tid_mid, landmarks)
    assert faces.images == ["1.jpg", "2.jpg"]
    assert faces.template.tolist() == [1, 1]
    assert faces.medium.tolist() == [69544, 3720]
    assert faces.detector_score.tolist() == [0.999, 0.125]
    assert faces.landmarks.shape == (2, 5, 2)
    assert faces.landmarks[1, 0].tolist() == [46.060, 62.026]
    assert faces.landmarks[1, 4].tolist() == [86.450, 98.648]


@pytest.mark.parametrize(
    ("tid_mid", "points", "message"),
    [
        (["1.jpg 1 2", "2.jpg 1"], [], "tid_mid.txt:2: 2 fields in '2.jpg 1'; 3 are needed: image template medium"),
        (["1.jpg 1 2", "2.jpg x 2"], [], "tid_mid.txt:2: template is 'x', not an integer"),
        (["1.jpg 1 2", "1.jpg 1 3"], [], "tid_mid.txt:2: image 1.jpg is on line 1 already"),
        (["1.jpg 1 2"], [f"2.jpg {POINTS} 1"], "points.txt:1: is of 2.jpg, but .*tid_mid.txt has 1.jpg there"),
        (["1.jpg 1 2"], [f"1.jpg {POINTS} nan"], "points.txt:1: a landmark or the score is 'nan'"),
        (["1.jpg 1 2"], [f"1.jpg {POINTS}"], "points.txt:1: 11 fields"),
        (["1.jpg 1 2", "2.jpg 1 2"], [f"1.jpg {POINTS} 1"], "points.txt: 1 faces, but .*tid_mid.txt has 2"),
        (["1.jpg 1 2"], [f"1.jpg {POINTS} 1", f"2.jpg {POINTS} 1"], "points.txt:2: is of 2.jpg, but .* no more image"),
    ],
)
def test_bad_lists_of_faces_are_refused_by_line(
    tmp_path: Path, tid_mid: list[str], points: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_faces(write(tmp_path, "tid_mid.txt", *tid_mid), write(tmp_path, "points.txt", *points))


def test_template_pairs_are_read(tmp_path: Path) -> None:
    pairs = read_template_pairs(write(tmp_path, "pairs.txt", "1 11065 1", "1 11066 0"))
    assert (pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist()) == ([1, 1], [11065, 11066], [True, False])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1 2 1", "1 3"], "pairs.txt:2: 2 fields"),
        (["1 2 1", "1 3 0.5"], "pairs.txt:2: label is '0.5', not an integer"),
        (["1 2"], "pairs.txt:1: 2 fields"),
        (["1 2 1", "1 3 2"], "pairs.txt: entry 2: label 2"),
        ([], "pairs.txt: holds no entry"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_bad_lists_of_pairs_are_refused_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_template_pairs(write(tmp_path, "pairs.txt", *lines))


def test_matches_of_nist_are_labeled_by_their_people(tmp_path: Path) -> None:
    gallery, probes = People(np.array([1, 2]), np.array([7, 8])), People(np.array([5, 30]), np.array([8, 9]))
    path = write(tmp_path, "matches.csv", "1,5", "2,5", "2,30")
    assert read_matches(path, gallery, probes).same.tolist() == [False, True, False]
    with pytest.raises(DataError, match=r"matches\.csv: entry 1: template 5 is in no gallery"):
        read_matches(path, gallery)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,1,img/1.jpg,2,0,0,1,1"], "list.csv:1: begins with '1,1,img/1.jpg,2'; TEMPLATE_ID,"),
        ([], "list.csv:1: begins with ''"),
        ([HEADER], "holds a header and no face"),
        ([HEADER, "1,1,img/1.jpg,2,0,0,1"], "list.csv:2: 7 fields"),
        ([HEADER, "1,a,img/1.jpg,2,0,0,1,1"], "list.csv:2: SUBJECT_ID is 'a', not an integer"),
        ([HEADER, "1,1,a,2,0,0,1,1", "1,2,b,3,0,0,1,1"], "list.csv:3: template 1 is of person 2, and above of 1"),
        ([HEADER, "1,1,a,2,0,0,1,1", "1,1,a,2,0,0,1,1"], "list.csv:3: the row 1,1,a,.* is on line 2 already"),
        (
            [HEADER, "1,1,a,2,0,0,1,1", "2,1,b,3,0,0,1,1"],
            r"person 1 has 2 templates, \[1, 2\]; in a gallery each has one",
        ),
    ],
)
def test_bad_galleries_are_refused_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_gallery(write(tmp_path, "list.csv", *lines))


def test_a_person_may_have_several_probes_and_empty_boxes(tmp_path: Path) -> None:
    path = write(tmp_path, "probes.csv", HEADER, "9,1,a,2,,,,", "3,1,frames/b.jpg,3,0,0,1,1", "9,1,c,2,0,0,1,1")
    probes = read_probes(path)
    assert (probes.template.tolist(), probes.subject.tolist()) == ([3, 9], [1, 1])


def test_files_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"image\.jpg: byte 0 is no UTF-8 text"):
        read_probes(image)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        read_probes(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        read_template_pairs(tmp_path / "none.txt")
