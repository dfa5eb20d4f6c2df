"""A run that an older arcdist has left goes on; one that a newer one has left is refused, whatever is asked of it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from small_runs import losses_of_run, small_config, small_trainer, stop_after_four_steps, weights

from arcdist.checkpoint.marker import read_marker, write_marker
from arcdist.checkpoint.schema import SCHEMA
from arcdist.cli.main import main
from arcdist.errors import NewerError

_SCALES = {"optim": {"lr_scales": ["layer1:0.5"]}}


def _leave_as(folder: Path, change: Any) -> None:
    """Have a run's folder as another arcdist would have left it."""
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        marker = read_marker(checkpoint)
        change(marker["config"])
        write_marker(checkpoint, marker)
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    change(config)
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")


def _of_schema_1(config: dict[str, Any]) -> None:
    del config["schema"]
    config["optim"]["lr_scales"] = {"layer1": 0.5}
    del config["train"]["compile"], config["train"]["ddp"]  # as there were none then; they have their defaults now


def _of_a_newer_one(config: dict[str, Any]) -> None:
    config["schema"] = SCHEMA + 1


def test_a_run_of_schema_1_goes_on_as_if_it_had_been_written_today(
    tmp_path: Path, faces: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("arcdist"), "propagate", True)
    caplog.set_level(logging.INFO)
    whole, cut = (small_config(tmp_path / name, faces / "train.rec", _SCALES) for name in ("whole", "cut"))
    losses = losses_of_run(whole)
    stop_after_four_steps(cut)
    _leave_as(tmp_path / "cut", _of_schema_1)
    assert losses_of_run(cut) == losses[4:]
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert "going on with another configuration" not in caplog.text


def test_a_run_of_a_newer_schema_is_refused_whatever_is_asked_of_it(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = small_config(run, faces / "train.rec", {"train": {"steps": 2}})
    small_trainer(config).run()
    _leave_as(run, _of_a_newer_one)
    config.train.steps = 3
    with pytest.raises(NewerError, match=f"schema {SCHEMA + 1}, this one knows {SCHEMA}"):
        small_trainer(config)
    for asked in (
        ["evaluate", f"{run}", f"sets=[{faces}/held_out.bin]"],
        ["evaluate", f"{run}", "analysis=angles"],
        ["report", f"{run}"],
        ["export", "hub", f"{tmp_path}/hub", f"model={run}"],
        ["export", "hub", f"{tmp_path}/hub", f"model={run}/checkpoints/step-000000002"],
    ):
        assert main(asked) == 1, asked
        told = capsys.readouterr().err
        assert "NewerError" in told, asked
        assert f"written by a newer arcdist: its configuration is of schema {SCHEMA + 1}" in told
    assert not (tmp_path / "hub").exists()
