"""``arcdist evaluate RUN analysis=angles``: the paper's Table 3 of a run that was trained."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_trainer

from arcdist.cli.main import main
from arcdist.data.evalsets import read_bin
from arcdist.evaluate.angles import angle_statistics
from arcdist.evaluate.embed import embed
from arcdist.evaluate.genuine_people import genuine_people

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
    assert "is no run's folder: config.yaml" in capsys.readouterr().err
