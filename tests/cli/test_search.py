"""``arcdist search``: a gallery is asked who somebody is, from photographs on, exactly or about."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import full_disk

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.errors import DataError
from arcdist.evaluate.faiss_index import FaissIndex
from arcdist.evaluate.identification import search

QUIET = ["runtime.device=cpu", "progress=false"]


def write_embedded(path: Path, rows: np.ndarray, labels: list[str]) -> str:
    """Write a file of embeddings and its index as ``arcdist embed`` does."""
    np.save(path, rows.astype(np.float32))
    lines = [f"{label}/{row}.jpg\t{label}\n" for row, label in enumerate(labels)]
    path.with_suffix(".tsv").write_text("name\tlabel\n" + "".join(lines))
    return str(path)


def answers(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    assert main(["search", *arguments, "runtime.device=cpu", "--json", str(tmp_path / "a.json")]) == 0
    return json.loads((tmp_path / "a.json").read_text())["answers"]


@pytest.fixture
def gallery(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Return a gallery of 300 people's faces, and its embeddings."""
    rows = np.random.default_rng(0).normal(size=(300, 16)) * np.arange(1, 301)[:, None]
    return write_embedded(tmp_path / "gallery.npy", rows, [f"person {row}" for row in range(300)]), rows


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_embedded(tmp_path / "gallery.npy", np.eye(2, 16), ["a[b]", "[/c]"])
    answers(tmp_path, file, file, "count=1")
    shown = capsys.readouterr().out
    assert "a[b]" in shown
    assert "[/c]" in shown


@pytest.mark.parametrize("index", [False, True])
def test_the_nearest_faces_are_named_with_their_cosines(tmp_path: Path, gallery: tuple, index: bool) -> None:
    file, rows = gallery
    queries = rows[[7, 250]] + 0.1 * np.random.default_rng(1).normal(size=(2, 16))
    asked = write_embedded(tmp_path / "q.npy", queries, ["x", "y"])
    extra = [f"index={tmp_path}/g.faiss"] if index else []
    unit, unit_rows = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, rows))
    cosines = unit @ unit_rows.T
    found = answers(tmp_path, file, asked, "count=3", *extra)
    assert [answer["query"] for answer in found] == ["x/0.jpg", "y/1.jpg"]
    for answer, row in zip(found, cosines):
        nearest = np.argsort(-row)[:3]
        assert [match["label"] for match in answer["matches"]] == [f"person {each}" for each in nearest]
        np.testing.assert_allclose([match["cosine"] for match in answer["matches"]], row[nearest], atol=1e-5)
    if index:
        before = (tmp_path / "g.faiss").stat().st_mtime_ns
        assert answers(tmp_path, file, asked, "count=3", *extra) == found
        assert (tmp_path / "g.faiss").stat().st_mtime_ns == before


def test_below_the_threshold_there_is_nobody(tmp_path: Path, gallery: tuple, capsys) -> None:
    file, rows = gallery
    asked = write_embedded(tmp_path / "q.npy", np.stack([rows[3], -rows.sum(0)]), ["x", "y"])
    known, stranger = answers(tmp_path, file, asked, "threshold=0.99", "count=500")
    assert [match["label"] for match in known["matches"]] == ["person 3"]
    assert stranger["matches"] == []
    assert "nobody" in capsys.readouterr().out


def test_an_index_finds_nearly_what_exact_search_finds_and_is_refused_for_another_gallery(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    people = torch.randn(400, 64, generator=random)
    rows = (people[:, None] + 0.7 * torch.randn(400, 10, 64, generator=random)).flatten(0, 1)
    queries = people[:100] + 0.7 * torch.randn(100, 64, generator=random)
    exact = search(queries, rows, 10)[1]
    found = FaissIndex(rows, tmp_path / "i.faiss").search(queries, 10)[1]
    shared = [len(set(one) & set(other)) for one, other in zip(exact.tolist(), found.tolist())]
    assert sum(shared) / 1000 > 0.95
    with pytest.raises(DataError, match=r"i\.faiss: is of another gallery"):
        FaissIndex(rows.flip(0), tmp_path / "i.faiss")
    changed = rows.clone()
    changed[1234] = -rows[1234]
    with pytest.raises(DataError, match=r"i\.faiss: is of another gallery"):
        FaissIndex(changed, tmp_path / "i.faiss")
    (tmp_path / "i.faiss").write_bytes(b"none")
    with pytest.raises(DataError, match=r"i\.faiss: no index of faiss"):
        FaissIndex(rows, tmp_path / "i.faiss")


def test_an_index_that_a_full_disk_cuts_short_is_not_there(tmp_path: Path) -> None:
    with full_disk(10_000), pytest.raises(DataError, match=r"i\.faiss: .* cannot be written"):
        FaissIndex(torch.randn(200, 16), tmp_path / "i.faiss")
    assert not list(tmp_path.iterdir())


def test_photographs_are_aligned_embedded_and_found(data_root: Path, tmp_path: Path) -> None:
    """A photograph itself is the nearest face of a gallery that holds it, whatever the network."""
    net = create_backbone("small", 16)
    model = str(tmp_path / "model.safetensors")
    save_file(net.state_dict(), model, {"backbone": "small", "embedding_dim": "16"})
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for image in sorted((data_root / "raw" / "images").iterdir())[:6]:
        (photographs / image.name).write_bytes(image.read_bytes())
    assert main(["align", str(photographs), f"{tmp_path}/faces"]) == 0
    assert main(["embed", model, f"{tmp_path}/faces", f"{tmp_path}/gallery.npy", *QUIET]) == 0
    queries = sorted((tmp_path / "faces").iterdir())
    found = answers(tmp_path, f"{tmp_path}/gallery.npy", f"{tmp_path}/faces", f"model={model}", "progress=false")
    assert [answer["matches"][0]["name"] for answer in found] == [answer["query"] for answer in found]
    assert all(answer["matches"][0]["cosine"] > 0.9999 for answer in found)
    one = answers(tmp_path, f"{tmp_path}/gallery.npy", str(queries[2]), f"model={model}", "progress=false", "count=2")
    assert [(answer["query"], len(answer["matches"])) for answer in one] == [(queries[2].name, 2)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "gallery: is not named"),
        (["gallery.npy"], 2, "queries: is not named"),
        (["gallery.npy", "faces"], 2, "model: faces is no file of `arcdist embed`, so it is taken for images"),
        (["gallery.npy", "gallery.npy", "model=m"], 2, "gallery.npy holds embeddings and needs none"),
        (["gallery.npy", "gallery.npy", "count=0"], 2, "count: 0"),
        (["none.npy", "gallery.npy"], 1, "none.npy: no such file"),
        (["gallery.npy", "gallery.npy", "index=."], 1, ".: no index of faiss"),
        (["gallery.npy", "other.npy"], 1, "queries of 8 dimensions, a gallery of 16"),
    ],
)
def test_faults_are_said_in_one_line(tmp_path, gallery, monkeypatch, capsys, arguments, code, message) -> None:
    write_embedded(tmp_path / "other.npy", np.eye(8), list("abcdefgh"))
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments]) == code
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
