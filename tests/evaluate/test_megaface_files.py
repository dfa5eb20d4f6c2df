"""Noise lists and probes' names are the real ones where they are at hand; the others are made to their description."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.lists import read_fields
from arcdist.evaluate.megaface_files import (
    noisy_images,
    read_features,
    read_image_list,
    read_matrix,
    read_noises,
    write_matrix,
)


@pytest.fixture(scope="module")
def megaface(data_root: Path) -> Path:
    folder = data_root / "protocols" / "megaface"
    return folder


def test_the_noise_lists_hold_605_and_707_names(megaface: Path) -> None:
    assert len(read_noises(megaface / "facescrub_noises.txt")) == 605
    assert len(read_noises(megaface / "megaface_noises.txt")) == 707


def test_24_of_the_3530_probes_are_noisy(megaface: Path) -> None:
    entries = read_fields(megaface / "facescrub2template_name.txt", "image mask")
    probes = [fields[0] for _, fields in entries]
    people = [probe.split("/")[0] for probe in probes]
    _, images = np.unique(people, return_counts=True)
    assert (len(probes), len(images), images.min(), images.max()) == (3530, 80, 27, 50)
    assert (images * (images - 1)).sum() == 153_634
    noises = read_noises(megaface / "facescrub_noises.txt")
    assert noisy_images(probes, noises, "stem").sum() == 24
    assert noisy_images(probes, noises, "path").sum() == 0  # the list has base names, in .png form


def test_distractors_are_noisy_by_their_whole_path(megaface: Path) -> None:
    noises = read_noises(megaface / "megaface_noises.txt")
    paths = ["375/37531198@N00/4174611825_0.jpg", "375/other/4174611825_0.jpg"]
    assert noisy_images(paths, noises, "path").tolist() == [True, False]
    with pytest.raises(ConfigError, match="match: 'name'"):
        noisy_images(paths, noises, "name")


def test_a_second_column_of_a_noise_list_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "noises.txt").write_text("#rules\na/b/c.jpg\twhy\nd/e/f'.jpg\n\n")
    assert read_noises(tmp_path / "noises.txt") == {"a/b/c.jpg", "d/e/f'.jpg"}


def test_a_matrix_comes_back_as_it_was_written(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    write_matrix(tmp_path / "features.bin", matrix)
    assert (tmp_path / "features.bin").read_bytes()[:16] == struct.pack("<4i", 5, 3, 12, 5)
    np.testing.assert_array_equal(read_matrix(tmp_path / "features.bin"), matrix)


@pytest.mark.parametrize("stride", [4, 8])
def test_float64_is_read_with_either_stride(tmp_path: Path, stride: int) -> None:
    values = np.array([1.5, -2.5])
    (tmp_path / "feature.bin").write_bytes(struct.pack("<4i", 2, 1, stride, 6) + values.tobytes())
    assert read_matrix(tmp_path / "feature.bin").ravel().tolist() == [1.5, -2.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1234", "4 bytes, shorter than the header"),
        (struct.pack("<4i", 2, 1, 4, 4) + bytes(8), "type 4; a feature file"),
        (struct.pack("<4i", 2, 1, 16, 5) + bytes(8), "stride 16"),
        (struct.pack("<4i", -2, 1, 4, 5) + bytes(8), "-2 rows"),
        (struct.pack("<4i", 2, 1, 4, 5) + bytes(7), "23 bytes, but 2×1 float32 need 24"),
        (struct.pack("<4i", 2, 1, 4, 5) + bytes(12), "28 bytes, but 2×1 float32 need 24"),
    ],
)
def test_files_that_are_no_features_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "feature.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_matrix(tmp_path / "feature.bin")


def test_only_a_finite_matrix_is_written(tmp_path: Path) -> None:
    for bad in ([1.0, 2.0], [[np.nan]], np.empty((0, 3))):
        with pytest.raises(DataError, match="a finite matrix"):
            write_matrix(tmp_path / "features.bin", bad)
    with pytest.raises(DataError, match="cannot be written"):
        write_matrix(tmp_path / "none" / "features.bin", [[1.0]])


def test_features_of_a_list_are_read_in_its_order(tmp_path: Path) -> None:
    for name, value in (("b.jpg", 1.0), ("a.jpg", 2.0)):
        write_matrix(tmp_path / f"{name}_net.bin", [[value], [0.0], [value]])
    features = read_features(tmp_path, ["b.jpg", "a.jpg"], "_net.bin")
    assert features.dtype == np.float32
    assert features.tolist() == [[1.0, 0.0, 1.0], [2.0, 0.0, 2.0]]

    with pytest.raises(DataError, match=r"c\.jpg_net\.bin: cannot be read: No such file"):
        read_features(tmp_path, ["b.jpg", "c.jpg"], "_net.bin")
    write_matrix(tmp_path / "c.jpg_net.bin", [[1.0], [1.0]])
    with pytest.raises(DataError, match="entry 2 has 2 dimensions, the first one 3"):
        read_features(tmp_path, ["b.jpg", "c.jpg"], "_net.bin")
    write_matrix(tmp_path / "c.jpg_net.bin", np.ones((2, 2)))
    with pytest.raises(DataError, match=r"entry 2 is a matrix \[2, 2\]"):
        read_features(tmp_path, ["b.jpg", "c.jpg"], "_net.bin")


def test_lists_of_the_devkit_are_read(tmp_path: Path) -> None:
    probes, distractors = tmp_path / "probes.json", tmp_path / "megaface_features_list.json_10_1"
    probes.write_text(json.dumps({"path": ["A/A_1.png", "B/B_2.png"], "id": ["A", "B"]}))
    distractors.write_text(json.dumps({"path": ["1/2@N0/3_0.jpg"]}))
    assert read_image_list(probes).people == ["A", "B"]
    assert read_image_list(distractors).paths == ["1/2@N0/3_0.jpg"]
    assert read_image_list(distractors).people is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no list of strings 'path'"),
        ('{"path": []}', "has no list of strings 'path'"),
        ('{"path": ["a", 2]}', "has no list of strings 'path'"),
        ('{"path": ["a", "b"], "id": ["A"]}', "'id' is no list of 2 entries"),
        ('{"path": ["a", "a"]}', "entry 2: image a is entry 1 already"),
        ('{"path":\n ["a"', "list.json:2: is no JSON"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_image_list(tmp_path / "list.json")
