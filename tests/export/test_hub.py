"""``arcdist export hub``: a run as a folder for a model hub, loaded back as it was."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from small_runs import small_config, small_trainer

from arcdist.backbones import create_backbone, load_backbone
from arcdist.cli.main import main

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """Return the folder of a finished run that was evaluated, and kept its best step."""
    folder = tmp_path_factory.mktemp("a_secret_place") / "run"
    evaluates = {
        "evaluate": {"sets": [str(faces / "held_out.bin")]},
        "checkpoint": {"best": "held_out.accuracy", "every": 6},
    }
    small_trainer(small_config(folder, faces / "train.rec", evaluates)).run()
    return folder


def _exported(source: Path, folder: Path, *more: str) -> Path:
    assert main(["export", "hub", str(folder), f"model={source}", *more]) == 0
    return folder


def _metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return file.metadata()


def _front_matter(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_folder_gives_the_embeddings_of_the_run(run: Path, tmp_path: Path) -> None:
    folder = _exported(run, tmp_path / "hub")
    with torch.inference_mode():
        expected = load_backbone(run)(IMAGES)
        torch.testing.assert_close(load_backbone(folder)(IMAGES), expected, rtol=0, atol=0)


def test_weights_say_how_they_were_made_and_what_they_take(run: Path, tmp_path: Path) -> None:
    told = _metadata(_exported(run, tmp_path / "hub", "license=mit"))
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(told["recipe"])["optim"]["name"] == "adamw"
    assert json.loads(told["metrics"])["held_out.accuracy"] == summary["accuracy"]
    assert json.loads(told["template"])[0] == pytest.approx([38.2946 * 32 / 112, 51.6963 * 32 / 112], abs=1e-4)
    expected = {"mean": "127.5", "std": "127.5", "color": "RGB", "image_size": "32", "license": "mit", "step": "6"}
    assert expected.items() <= told.items()


def test_the_card_shows_what_the_run_scored_to_people_and_to_the_hub(run: Path, tmp_path: Path) -> None:
    folder = _exported(run, tmp_path / "hub", "name=Faces, tiny", "license=apache-2.0")
    summary = json.loads((run / "summary.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"| held_out | 40 | {100 * summary['accuracy']:.2f} ± {100 * summary['std']:.2f} |" in card
    about = _front_matter(folder)
    assert (about["license"], about["model-index"][0]["name"]) == ("apache-2.0", "Faces, tiny")
    metrics = about["model-index"][0]["results"][0]["metrics"]
    assert {"type": "accuracy", "value": summary["accuracy"]} in metrics


def test_the_lines_of_code_on_the_card_run(run: Path, tmp_path: Path) -> None:
    folder = _exported(run, tmp_path / "hub")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(folder)), names)
    assert names["embedding"].norm(dim=1).item() == pytest.approx(1)


def test_no_place_on_this_machine_is_told(run: Path, faces: Path, tmp_path: Path) -> None:
    for path in _exported(run, tmp_path / "hub").iterdir():
        for place in (run.parent, faces):
            assert str(place).encode() not in path.read_bytes()
            assert place.name.encode() not in path.read_bytes()


def test_of_the_best_step_its_own_score_is_told(run: Path, tmp_path: Path) -> None:
    best = json.loads((run / "summary.json").read_text())["best"]
    told = _metadata(_exported(run / "best.model.safetensors", tmp_path / "hub"))
    assert json.loads(told["metrics"]) == {"held_out.accuracy": best["value"]}
    assert told["step"] == str(best["step"])


@pytest.mark.parametrize("summary", [{"sets": [1]}, {"sets": {"lfw": 3}}, {"best": [1]}])
@pytest.mark.parametrize("weights", ["model.safetensors", "best.model.safetensors"])
def test_a_summary_that_a_hand_has_changed_is_no_reason_to_fail(
    run: Path, tmp_path: Path, summary: dict[str, Any], weights: str
) -> None:
    for name in ("config.yaml", weights):
        shutil.copy(run / name, tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert "held_out" not in _metadata(_exported(tmp_path / weights, tmp_path / "hub"))["metrics"]


def test_a_checkpoint_tells_what_it_scored(run: Path, tmp_path: Path) -> None:
    told = _metadata(_exported(run / "checkpoints" / "step-000000006", tmp_path / "hub"))
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(told["metrics"])["held_out.accuracy"] == summary["accuracy"]
    assert json.loads(told["recipe"])["train"]["steps"] == 6


def test_what_is_exported_again_tells_the_same(run: Path, tmp_path: Path) -> None:
    once = _exported(run, tmp_path / "once", "license=mit")
    assert _metadata(_exported(once, tmp_path / "twice", "license=mit")) == _metadata(once)


def test_weights_of_insightface_are_taken_without_a_run(tmp_path: Path) -> None:
    model = create_backbone("small_thin", 16).eval()
    torch.save(model.state_dict(), tmp_path / "backbone.pt")
    folder = _exported(tmp_path / "backbone.pt", tmp_path / "hub", "backbone=small_thin", "embedding_dim=16")
    images = torch.linspace(-1, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    with torch.inference_mode():
        torch.testing.assert_close(load_backbone(folder)(images), model(images), rtol=0, atol=0)
    assert "Not known." in (folder / "README.md").read_text()


def test_other_files_of_a_folder_stay(run: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    _exported(run, tmp_path / "hub")
    assert {path.name for path in _exported(run, tmp_path / "hub").iterdir()} == {
        *(".gitattributes", "config.json", "model.safetensors", "README.md")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hub"], "output: is not named"),
        (["hub", "out"], "model: is not named"),
        (["caffe", "out", "model=m.pt"], "'caffe': is no kind of export; must be one of hub"),
        (["hub", "out", "model=absent"], "absent: no such file or folder"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["export", "hub", str(tmp_path / "file"), f"model={run}"]) == 1
    assert "cannot be written" in capsys.readouterr().err
