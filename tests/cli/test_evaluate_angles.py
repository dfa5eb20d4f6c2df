"""``arcdist evaluate RUN analysis=angles``: the paper's Table 3 of a run that was trained."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arcdist.cli.main import main
from arcdist.data.evalsets import read_bin
from arcdist.evaluate.angles import angle_statistics
from arcdist.evaluate.embed import embed
from arcdist.evaluate.genuine_people import genuine_people
from arcdist.evaluate.pair_sample import PAIRS

QUIET = ["analysis=angles", "runtime.device=cpu", "runtime.threads=1", "progress=false"]


def test_the_angles_are_those_of_the_runs_own_net_and_centers(faces: Path, tmp_path: Path) -> None:
    trainer = small_trainer(small_config(tmp_path / "run", faces / "train.rec", {"train": {"steps": 2}}))
    trainer.run()
    net, head, dataset = trainer.step.backbone, trainer.step.head, trainer.dataset
    images = [dataset.read(sample)[1] for sample in range(len(dataset))]

    def embedded(images: list[bytes]) -> torch.Tensor:
        return embed(net, images, device=torch.device("cpu"), batch_size=128, flip=False, image_size=32)

    arguments = ["evaluate", f"{tmp_path}/run", f"sets=[{faces}/held_out.bin]", *QUIET]
    assert main([*arguments, "--json", f"{tmp_path}/a.json"]) == 0
    found = json.loads((tmp_path / "a.json").read_text())["angles"]
    labels = torch.from_numpy(dataset.labels())
    expected = angle_statistics(embedded(images), labels, dataset.num_classes, head.centers.detach()).degrees()
    assert found["training"]["degrees"] == pytest.approx(expected, abs=1e-3)
    assert (found["training"]["images"], found["training"]["classes"]) == (60, 10)
    pairs, people = genuine_people(read_bin(faces / "held_out.bin"))
    expected = angle_statistics(embedded(pairs), people, int(people.max()) + 1).degrees()
    assert found["held_out"]["degrees"] == pytest.approx(expected, abs=1e-3)
    assert found["held_out"]["degrees"]["W-EC"] is None


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *QUIET]) == 2
    assert "no run is named" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), *QUIET]) == 1
    assert "is no run's folder: it holds no config.yaml" in capsys.readouterr().err


def test_pairs_and_means_are_drawn_in_a_folder_and_on_tensorboard(faces: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_trainer(small_config(run, faces / "train.rec", {"train": {"steps": 1}})).run()
    arguments = ["evaluate", str(run), f"sets=[{faces}/held_out.bin]", *QUIET, f"pictures={tmp_path}/p"]
    assert main([*arguments, "tensorboard=true", "--json", f"{tmp_path}/a.json"]) == 0
    for name in ("pair_angles", "mean_angles"):
        assert (tmp_path / "p" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    board = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    assert {"pair_angles", "mean_angles"} <= set(board.Tags()["images"])
    assert board.Images("pair_angles")[0].step == 1
    pairs = json.loads((tmp_path / "a.json").read_text())["angles"]["training"]["pairs_degrees"]
    assert pairs["genuine"]["pairs"] == 10 * 15  # ten people of six images each
    assert pairs["impostor"]["pairs"] == PAIRS
    assert main([*arguments, "picture_format=svg", "training=false"]) == 0
    assert "<svg" in (tmp_path / "p" / "pair_angles.svg").read_text()


def test_a_picture_in_no_known_form_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), *QUIET, "picture_format=gif"]) == 2
    assert "picture_format: 'gif': must be one of png, svg" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), *QUIET, "tensorboard=true"]) == 2
    assert "give pictures=FOLDER" in capsys.readouterr().err
