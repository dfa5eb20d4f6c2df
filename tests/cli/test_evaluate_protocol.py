"""``arcdist evaluate protocol=NAME``: from a benchmark's own lists to its figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.data.synthetic import SyntheticConfig, encode
from arcdist.evaluate.embedded_faces import read_embedded
from arcdist.evaluate.megaface_files import read_matrix
from arcdist.evaluate.pair_lists import read_cfp, read_lfw
from arcdist.evaluate.protocols.registry import PROTOCOLS


def write_embedded(path: Path, names: list[str], rows: np.ndarray) -> str:
    """Write a file of embeddings and its index as ``arcdist embed`` does."""
    np.save(path, rows.astype(np.float32))
    path.with_suffix(".tsv").write_text("name\tlabel\n" + "".join(f"{n}\t{n.rpartition('/')[0]}\n" for n in names))
    return str(path)


def perfect(path: Path, people: dict[str, Any]) -> str:
    """Write embeddings of faces that tell the people apart without fail."""
    known = {person: row for row, person in enumerate(dict.fromkeys(people.values()))}
    directions = np.random.default_rng(0).normal(size=(len(known), 48))
    return write_embedded(path, list(people), directions[[known[person] for person in people.values()]])


def evaluated(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Return the JSON that a command leaves."""
    assert main(["evaluate", *arguments, "runtime.device=cpu", "--json", str(tmp_path / "answer.json")]) == 0
    return json.loads((tmp_path / "answer.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == code
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    return said


@pytest.mark.parametrize("name", PROTOCOLS)
def test_help_names_the_keys_of_a_protocol(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", f"protocol={name}", "--help"]) == 0
    assert f"protocol={name}" in capsys.readouterr().out


def test_a_real_networks_embeddings_by_name_give_the_known_numbers(data_root: Path, tmp_path: Path) -> None:
    pairs = read_lfw(data_root / "lfw_dev_pairs.txt")
    known = np.load(data_root / "sface_dev_embeddings.npz")["embeddings"]
    of_name = dict(zip(pairs.names, known))
    file = write_embedded(tmp_path / "e.npy", sorted(of_name), np.stack([of_name[name] for name in sorted(of_name)]))
    answer = evaluated(tmp_path, file, "protocol=lfw", f"pairs={data_root}/lfw_dev_pairs.txt")
    assert len(of_name) == 1036
    assert round(answer["figures"]["accuracy"], 6) == 0.998667
    assert round(answer["details"]["std"], 6) == 0.002667
    assert answer["options"] == {"grid": "insightface", "pairs": f"{data_root}/lfw_dev_pairs.txt"}


def test_a_network_without_fail_scores_full_on_the_real_lists(data_root: Path, tmp_path: Path) -> None:
    lists = data_root / "protocols"
    names = read_lfw(lists / "lfw/pairs.txt").names
    file = perfect(tmp_path / "lfw.npy", {name: name.split("/")[0] for name in names})
    assert evaluated(tmp_path, file, "protocol=lfw", f"pairs={lists}/lfw/pairs.txt")["figures"]["accuracy"] == 1.0
    names = read_cfp(lists / "cfp/Protocol", "FP").names
    file = perfect(tmp_path / "cfp.npy", {name: name.split("/")[0] for name in names})
    answer = evaluated(tmp_path, file, "protocol=cfp_fp", f"lists={lists}/cfp/Protocol")
    assert (answer["figures"]["accuracy"], answer["details"]["pairs"]) == (1.0, 7000)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return the weights of a small network."""
    net = create_backbone("small", 16)
    save_file(net.state_dict(), tmp_path / "model.safetensors", {"backbone": "small", "embedding_dim": "16"})
    return str(tmp_path / "model.safetensors")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of six people, three images each."""
    for person in range(6):
        folder = tmp_path / "images" / f"P{person}"
        folder.mkdir(parents=True)
        for image in range(3):
            (folder / f"P{person}_{image + 1:04d}.png").write_bytes(encode(SyntheticConfig(), person, image))
    return tmp_path / "images"


def test_a_model_and_a_folder_give_what_their_embeddings_give(tmp_path: Path, images: Path, model: str) -> None:
    genuine = [f"P{person}\t{first}\t{first % 3 + 1}\n" for person in range(5) for first in (1, 2)]
    impostor = [f"P{person}\t{image}\tP{person + 1}\t3\n" for person in range(5) for image in (1, 2)]
    (tmp_path / "pairs.txt").write_text("10\n" + "".join(genuine + impostor))
    pairs = f"pairs={tmp_path}/pairs.txt"
    keep = f"keep={tmp_path}/kept.npy"
    directly = evaluated(tmp_path, model, "protocol=lfw", pairs, f"images={images}", keep, "progress=false")
    assert len(np.load(tmp_path / "kept.npy")) == 16  # of 18: what the list does not name is not embedded
    assert evaluated(tmp_path, f"{tmp_path}/kept.npy", "protocol=lfw", pairs)["details"] == directly["details"]
    assert main(["embed", model, str(images), f"{tmp_path}/all.npy", "runtime.device=cpu", "progress=false"]) == 0
    of_all_images = evaluated(tmp_path, f"{tmp_path}/all.npy", "protocol=lfw", pairs)
    assert of_all_images["details"]["fold_accuracies"] == directly["details"]["fold_accuracies"]


def test_faults_are_said_in_one_line(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_embedded(tmp_path / "e.npy", ["a/a_0001.jpg", "b/b_0001.jpg"], np.eye(2))
    (tmp_path / "pairs.txt").write_text("a\t1\t2\n")
    pairs = f"pairs={tmp_path}/pairs.txt"
    assert "must be one of lfw, " in refused(capsys, 2, file, "protocol=lwf")
    assert "must be one of lfw, " in refused(capsys, 2, file, "--protocol", "lwf")
    assert "pairs: is not given" in refused(capsys, 2, file, "protocol=lfw")
    assert "piars: no such key; did you mean 'pairs'?" in refused(capsys, 2, file, "protocol=lfw", "piars=x")
    assert "grid: 'fine'" in refused(capsys, 2, file, "protocol=lfw", pairs, "grid=fine")
    assert "pairs.txt: entry 1: " in refused(capsys, 1, file, "protocol=lfw", pairs)
    assert "has no a/a_0002.jpg; 1 of 2 are missing" in refused(capsys, 1, file, "protocol=lfw", pairs)
    assert "needs images=FOLDER" in refused(capsys, 2, model, "protocol=lfw", pairs)
    assert "needs none" in refused(capsys, 2, file, "protocol=lfw", pairs, "images=faces")


def test_photographs_are_aligned_by_the_landmarks_of_the_list(data_root: Path, tmp_path: Path, model: str) -> None:
    raw, out = data_root / "raw", tmp_path / "features.bin"
    lists = [f"lists={raw}/landmarks.txt", f"images={raw}/images", f"output={out}", "progress=false"]
    assert evaluated(tmp_path, model, "protocol=trillion_pairs", *lists)["details"]["images"] == 37
    aligned = ["embed", model, f"{raw}/aligned", f"{tmp_path}/e.npy", "runtime.device=cpu", "progress=false"]
    assert main(aligned) == 0
    reference = read_embedded(tmp_path / "e.npy")
    names = [line.split()[0] for line in (raw / "landmarks.txt").read_text().splitlines()]
    rows = reference.part(reference.index.rows(names, "landmarks.txt")).numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.sum(unit * read_matrix(out), axis=1).min() > 0.9999
