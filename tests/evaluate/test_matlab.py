from pathlib import Path

import numpy as np
import pytest
import scipy.io

from arcdist.errors import DataError
from arcdist.evaluate.matlab import read_mat


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes_is_read(tmp_path: Path, compressed: bool) -> None:
    names = np.array([["1_106.jpg"], ["a"], ["Ünal.jpg"]], dtype=object)
    numbers = {
        "small": np.array([[1, -2, 3]], np.int8),
        "ids": np.array([[1, 65000, 3], [4, 5, 6]], np.uint16),
        "real": np.array([[0.5], [-1e300]]),
        "single": np.array([[0.25, 3.0]], np.float32),
        "long": np.array([[2**40]], np.int64),
        "none": np.empty((0, 3)),
    }
    path = tmp_path / "list.mat"
    scipy.io.savemat(path, numbers | {"names": names, "text": "abc"}, do_compression=compressed)
    found = read_mat(path)
    assert list(found) == [*numbers, "names", "text"]
    for name, expected in numbers.items():
        np.testing.assert_array_equal(found[name], expected)
    assert found["names"] == ["1_106.jpg", "a", "Ünal.jpg"]
    assert found["text"] == "abc"


@pytest.mark.parametrize("compressed", [False, True])
def test_structures_are_read(tmp_path: Path, compressed: bool) -> None:
    face = {"name": "a_b", "a_longer_name_of_a_field": np.array([[7]], np.uint8)}
    cell = np.empty((2, 1), object)
    cell[0, 0], cell[1, 0] = face, "b"
    two = np.array([("x", 1.0), ("y", 2.0)], dtype=[("name", object), ("age", object)])
    path = tmp_path / "list.mat"
    scipy.io.savemat(path, {"one": {"faces": cell}, "two": two}, do_compression=compressed)
    found = read_mat(path)
    assert found["one"] == {"faces": [face, "b"]}
    assert [{name: np.ravel(value)[0] for name, value in each.items()} for each in found["two"]] == [
        {"name": "x", "age": 1.0},
        {"name": "y", "age": 2.0},
    ]


def test_files_that_are_not_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.mat"
    with pytest.raises(DataError, match="cannot be read"):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    with pytest.raises(DataError, match=r"is no little-endian MATLAB 5\.0 file"):
        read_mat(path)
    scipy.io.savemat(path, {"z": np.array([1j])})
    with pytest.raises(DataError, match="what is not read"):
        read_mat(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_is_refused_or_holds_less(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "list.mat"
    scipy.io.savemat(path, {"ids": np.arange(40), "names": np.array(["a", "b"], object)}, do_compression=compressed)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        try:
            assert set(read_mat(path)) < {"ids", "names"}
        except DataError:
            continue


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.mat"
    scipy.io.savemat(path, {"ids": np.arange(400)}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[150:160] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_mat(path)
