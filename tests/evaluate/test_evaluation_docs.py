"""The commands of docs/evaluation.md work as they stand there."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from protocol_lists import MAKERS
from safetensors.torch import save_file

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.data.synthetic import SyntheticConfig, encode
from arcdist.evaluate.protocols.registry import PROTOCOLS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
QUIET = ["runtime.device=cpu", "progress=false"]


def in_the_table() -> list[list[str]]:
    """Return the commands of the table of protocols, without the word arcdist."""
    return [shlex.split(each)[1:] for each in re.findall(r"`(arcdist evaluate \S+\.npy protocol=[^`]+)`", PAGE)]


def blocks() -> list[list[list[str]]]:
    """Return the commands of each block for a shell."""
    found = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [[shlex.split(line)[1:] for line in block.splitlines()] for block in found]


def protocol_of(command: list[str]) -> str:
    return next(word.partition("=")[2] for word in command if word.startswith("protocol="))


def run_folder() -> None:
    """Make the run that the page speaks of, of a small network without training."""
    model = create_backbone("small", 16)
    Path("runs/r50").mkdir(parents=True)
    save_file(model.state_dict(), "runs/r50/model.safetensors", {"backbone": "small", "embedding_dim": "16"})


def test_the_table_has_every_protocol() -> None:
    assert {protocol_of(command) for command in in_the_table()} == {*PROTOCOLS}


@pytest.mark.parametrize("command", in_the_table(), ids=" ".join)
def test_a_network_without_fail_scores_full_by_the_command_of_the_page(command, tmp_path, monkeypatch) -> None:
    """On lists made to their description; TinyFace's, which are MATLAB's, are read in another test."""
    name = protocol_of(command)
    if name not in MAKERS:
        assert name == "tinyface"
        return
    monkeypatch.chdir(tmp_path)
    people = MAKERS[name](tmp_path)
    if name == "lfw" and "pairs=pairs.txt" not in command:
        Path("pairs.txt").rename(next(word.partition("=")[2] for word in command if word.startswith("pairs=")))
    known = {person: row for row, person in enumerate(dict.fromkeys(people.values()))}
    directions = np.random.default_rng(0).normal(size=(len(known), 64))
    np.save(command[1], directions[[known[person] for person in people.values()]].astype(np.float32))
    index = "".join(f"{image}\t{person}\n" for image, person in people.items())
    Path(command[1]).with_suffix(".tsv").write_text("name\tlabel\n" + index)
    assert main([*command, "runtime.device=cpu", "--json", "answer.json"]) == 0
    figures = json.loads(Path("answer.json").read_text())["figures"]
    wrong = {"STD": 0.0, "EER": 0.0}
    assert figures == pytest.approx({key: wrong.get(key, 1.0) for key in figures})


def test_images_are_embedded_and_judged_by_the_commands_of_the_page(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder()
    for image in MAKERS["lfw"](tmp_path):
        path = tmp_path / "lfw_112x112" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(SyntheticConfig(), int(path.parent.name[1:]), int(path.stem[-1])))
    for command in blocks()[0]:
        assert main([*command, "runtime.device=cpu"]) == 0
    judged = json.loads(Path("lfw.json").read_text())["details"]
    (command,) = re.findall(r"^    arcdist (evaluate runs/r50 protocol=lfw .*)$", PAGE, re.MULTILINE)
    assert main([*shlex.split(command), *QUIET, "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["details"]["fold_accuracies"] == judged["fold_accuracies"]


def test_somebody_is_found_by_the_commands_of_the_page(data_root: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder()
    Path("photographs").mkdir()
    for image in (data_root / "raw" / "images").glob("Carmen*"):
        Path("photographs", image.name).write_bytes(image.read_bytes())
    align, *others = blocks()[1]
    assert main(align) == 0
    for command in others:
        assert main([*command, *QUIET]) == 0
    (answer,) = json.loads(Path("answers.json").read_text())["answers"]
    assert answer["matches"][0]["name"] == "Carmen_Electra_0002.jpg"
