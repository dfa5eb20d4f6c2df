"""What ``arcdist embed`` wrote is read again, and looked up by name."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from arcdist.errors import DataError
from arcdist.evaluate.embedded_faces import is_embedded, read_embedded
from arcdist.evaluate.face_index import FaceIndex

NAMES = ["a/1.jpg", "a/2.png", "b.c/1", "d"]


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    """Return embeddings that stand in e.npy and e.safetensors, with their index."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.save(tmp_path / "e.npy", rows)
    save_file({"embeddings": rows}, tmp_path / "e.safetensors")
    (tmp_path / "e.tsv").write_text("name\tlabel\n" + "".join(f"{name}\t{name[0]}\n" for name in NAMES))
    return rows


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_file_of_embeddings_is_read_with_its_index(tmp_path: Path, rows: np.ndarray, suffix: str) -> None:
    faces = read_embedded(tmp_path / f"e{suffix}")
    assert np.array_equal(faces.embeddings.numpy(), rows)
    assert (faces.index.names, faces.index.labels) == (NAMES, ["a", "a", "b", "d"])
    assert np.array_equal(faces.part(np.array([3, 0, 0])).numpy(), rows[[3, 0, 0]])
    assert faces.part(np.array([1, 2])).data_ptr() == faces.embeddings[1:].data_ptr()  # no copy
    assert is_embedded(tmp_path / f"e{suffix}")
    assert not is_embedded(tmp_path / f"other{suffix}")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("name\tlabel\na\t\n", r"e\.npy: 4 embeddings, but .*e\.tsv names 1"),
        ("name\tlabel\na\t\nb\n", r"e\.tsv:3: 'b' is no name and label"),
        ("a\t0\n", r"e\.tsv: begins with 'a\\t0'"),
        ("name\tlabel\na\t", r"e\.tsv: begins with .* whole"),
    ],
)
def test_an_index_of_another_file_is_refused(tmp_path: Path, rows: np.ndarray, index: str, message: str) -> None:
    (tmp_path / "e.tsv").write_text(index)
    with pytest.raises(DataError, match=message):
        read_embedded(tmp_path / "e.npy")


def test_what_is_no_file_of_embeddings_is_refused(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(tmp_path / "e.npy", np.arange(4))
    (tmp_path / "e.safetensors").write_bytes(b"no")
    for suffix, message in ((".npy", r"int64 \[4\]"), (".safetensors", "is no file of embeddings, as")):
        with pytest.raises(DataError, match=message):
            read_embedded(tmp_path / f"e{suffix}")
    with pytest.raises(DataError, match=r"none\.npy: no such file"):
        read_embedded(tmp_path / "none.npy")


def test_faces_are_found_by_name_and_by_another_suffix() -> None:
    index = FaceIndex(NAMES, [""] * 4, "faces")
    assert index.rows(["d", "a/2.png", "a/2.jpg", "b.c/1.jpg"], "list").tolist() == [3, 1, 1, 2]
    rows, folders = index.under(["a"], "list")
    assert (rows.tolist(), folders) == ([0, 1], ["a", "a"])


def test_no_missing_face_is_passed_over() -> None:
    index = FaceIndex(NAMES, [""] * 4, "faces")
    with pytest.raises(DataError, match=r"list: entry 2: faces has no a/3\.jpg; 2 of 4 are missing\. It has a/1\.jpg"):
        index.rows(["a/1.jpg", "d", "a/3.jpg", "x"], "list", each=2)
    with pytest.raises(DataError, match="list: faces has no face in z; 1 of 2 folders are missing"):
        index.under(["a", "z"], "list")
