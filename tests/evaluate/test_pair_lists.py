"""Benchmarks' lists of pairs: the real ones hold what their authors say, and bad ones are refused by line."""

import re
from pathlib import Path

import numpy as np
import protocol_lists
import pytest

from arcdist.errors import DataError
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.pair_lists import (
    PairList,
    read_agedb,
    read_cfp,
    read_labeled,
    read_lfw,
    read_sllfw,
    read_two_lines,
)


def blocks(pairs: PairList, each: int) -> bool:
    """Return whether every tenth of the list has so many genuine pairs, and then as many impostor pairs."""
    return pairs.same.reshape(10, 2, each).all(2).tolist() == [[True, False]] * 10


@pytest.mark.parametrize(
    ("name", "each", "images"),
    [("lfw/pairs.txt", 300, 7701), ("xqlfw/xqlfw_pairs.txt", 300, 7263), ("lfw/pairsDevTest.txt", 50, None)],
)
def test_the_real_lists_in_lfws_form_have_ten_folds(data_root: Path, name: str, each: int, images: int | None) -> None:
    pairs = read_lfw(data_root / "protocols" / name)
    assert blocks(pairs, each)
    assert images is None or len(set(pairs.names)) == images
    people = np.array([name.split("/")[0] for name in pairs.names]).reshape(-1, 2)
    assert (pairs.same == (people[:, 0] == people[:, 1])).all()
    assert all(re.fullmatch(r"(.+)/\1_\d{4}\.jpg", each) for each in pairs.names)


def test_view_1_is_dealt_to_the_folds(data_root: Path) -> None:
    """The list has all genuine pairs first, so contiguous tenths would hold pairs of one kind only."""
    assert blocks(read_lfw(data_root / "protocols/lfw/pairsDevTrain.txt"), 110)


@pytest.mark.parametrize(("kind", "images"), [("FF", 4764), ("FP", 5901)])
def test_the_real_folder_of_cfp_holds_its_people_in_one_fold_each(data_root: Path, kind: str, images: int) -> None:
    pairs = read_cfp(data_root / "protocols/cfp/Protocol", kind)
    assert blocks(pairs, 350)
    assert len(set(pairs.names)) == images
    people = np.array([name.split("/")[0] for name in pairs.names]).reshape(10, -1)
    assert [len(set(fold)) for fold in people.tolist()] == [50] * 10
    sides = {name.split("/")[1] for name in pairs.names[1::2]}
    assert sides == {"profile" if kind == "FP" else "frontal"}


def test_two_lines_a_pair_are_dealt_to_the_folds(tmp_path: Path) -> None:
    """CALFW's form: the fold of genuine pairs is their token, impostor pairs have none."""
    genuine = [f"A{fold}_{image}.jpg {fold}\nA{fold}_9.jpg {fold}\n" for fold in range(1, 11) for image in range(2)]
    impostor = [f"A{pair}_1.jpg 0\nB{pair}_1.jpg 0\n" for pair in range(20)]
    (tmp_path / "pairs_CALFW.txt").write_text("".join(genuine + impostor))
    pairs = read_two_lines(tmp_path / "pairs_CALFW.txt")
    assert blocks(pairs, 2)
    assert pairs.names[:8] == [f"A1_{i}.jpg" for i in (0, 9, 1, 9)] + ["A0_1.jpg", "B0_1.jpg", "A1_1.jpg", "B1_1.jpg"]
    assert {name[:2] for name in pairs.names[8:12]} == {"A2"}


def test_labeled_pairs_stay_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "pairs_label.txt").write_text("a/1.jpg b/1.jpg 0\na/1.jpg a/2.jpg 1\nb/1.jpg c/1.jpg 0\n")
    pairs = read_labeled(tmp_path / "pairs_label.txt")
    assert pairs.names == ["a/1.jpg", "b/1.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg"]
    assert pairs.same.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_labeled, "a b 1\na b\n", "list.txt:2: 2 fields in 'a b'; 3 are needed: image image label"),
        (read_labeled, "a b 2\n", "list.txt:1: label '2': must be 1"),
        (read_two_lines, "a 1\nb 1\nc 0\n", "list.txt: 3 lines; a pair has two"),
        (read_two_lines, "a 1\nb 1\nc 0\nd 1\n", "list.txt:4: token 1, but 0 on the line before"),
        (read_two_lines, "a x\nb x\n", "list.txt:1: token is 'x', not an integer"),
    ],
)
def test_bad_lists_are_refused_by_line(tmp_path: Path, read, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path / "list.txt")


def test_the_second_number_of_a_frontal_profile_pair_is_of_the_list_of_profiles(tmp_path: Path) -> None:
    protocol_lists.cfp(tmp_path)
    pairs = read_cfp(tmp_path / "Protocol", "FP")
    assert pairs.names[:4] == ["001/frontal/01.jpg", "001/profile/02.jpg", "001/frontal/01.jpg", "002/profile/01.jpg"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Split/FP/03/same.txt", "9,41\n", "03/same.txt:1: number 41; the list of images has 1 to 40"),
        ("Split/FP/03/same.txt", "9,7\n", "03/same.txt:1: 005/frontal/01.jpg and 004/profile/01.jpg in a list of the"),
        ("Split/FP/03/diff.txt", "9 4\n", "03/diff.txt:1: 1 fields in '9 4'; 2 are needed"),
        ("Pair_list_P.txt", "1 a/b/c.jpg\n3 a/b/d.jpg\n", "Pair_list_P.txt:2: number 3; lines are numbered from 1"),
    ],
)
def test_a_bad_folder_of_cfp_is_refused_by_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    protocol_lists.cfp(tmp_path)
    (tmp_path / "Protocol" / file).write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_cfp(tmp_path / "Protocol", "FP")


def test_sllfw_is_read_by_folders_and_stays_in_its_order(tmp_path: Path) -> None:
    protocol_lists.sllfw(tmp_path)
    pairs = read_sllfw(tmp_path / "pair_SLLFW.txt")
    assert pairs.same.tolist() == [True, False] * 10
    assert pairs.names[:4] == [f"P0/P0_000{i}.jpg" for i in (1, 2, 1)] + ["P1/P1_0002.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.jpg\nb/1.jpg\na/1.jpg\n", "3 lines; a pair has two"),
        ("a/1.jpg\nb/1.jpg 0\n", ":2: 2 fields in 'b/1.jpg 0'; 1 are needed: image"),
        ("a/1.jpg\nb_1.jpg\n", ":1: a/1.jpg and b_1.jpg: NAME/NAME_0001.jpg is the form"),
        ("a/1.jpg\na/1.jpg\n", ":1: a/1.jpg is paired with itself"),
        ("a/1.jpg\nb/1.jpg\nb/1.jpg\na/1.jpg\n", ":3: b/1.jpg and a/1.jpg are a pair on line 1 already"),
    ],
)
def test_a_list_that_is_not_sllfws_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pair_SLLFW.txt").write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_sllfw(tmp_path / "pair_SLLFW.txt")


def test_agedb_is_read_by_its_own_labels(tmp_path: Path) -> None:
    protocol_lists.agedb(tmp_path)
    pairs = read_agedb(tmp_path / "04_FINAL_protocol_30_years.mat")
    assert pairs.same.tolist() == [True, False] * 10
    assert pairs.names[:4] == [
        "0_Name0_20_20_m.jpg",
        "0_Name0_50_50_m.jpg",
        "0_Name0_20_20_m.jpg",
        "1_Name1_50_50_m.jpg",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda splits: splits.pop(), "has no variable 'splits' of 10 cells"),
        (lambda splits: splits[2].update(labels=[1, 0]), "split 3: labels [0, 1]: must be 1 (one person) or -1"),
        (lambda splits: splits[4].update(labels=[1]), "split 5: is no matrix of two faces a pair"),
        (lambda splits: splits[1].update(pairs=[["a", "b"]], labels=[1]), "split 2: has 1 pairs, those before it 2"),
        (lambda splits: splits[0].update(pairs=[["a", "b"], ["c", "c"]]), "split 1: pair 2: 'c' and 'c' are not"),
    ],
)
def test_a_matlab_file_that_is_not_agedbs_is_refused(tmp_path: Path, change, message: str) -> None:
    protocol_lists.agedb(tmp_path, change)
    with pytest.raises(DataError, match=re.escape(message)):
        read_agedb(tmp_path / "04_FINAL_protocol_30_years.mat")


def test_an_image_of_agedb_that_is_missing_is_named(tmp_path: Path) -> None:
    images = [name for name in protocol_lists.agedb(tmp_path) if not name.startswith("3_")]
    path = tmp_path / "04_FINAL_protocol_30_years.mat"
    with pytest.raises(DataError, match=r"entry 6: faces has no 3_Name3_50_50_m\.jpg; 4 of 40 are missing"):
        FaceIndex(images, [""] * len(images), "faces").rows(read_agedb(path).names, path, each=2)
