"""A run tells Weights & Biases and MLflow of itself, by their packages, without a network; it never fails by them."""

import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from small_runs import losses_of_run, small_config, stop_after_four_steps
from support import run_ranks

from arcdist.cli.main import main
from arcdist.errors import ConfigError
from arcdist.train.config import TrainConfig
from arcdist.train.trackers.fan_out import FanOut
from arcdist.train.trackers.protocol import Start, Tracker

SECRET = "0123456789abcdef" * 3
_BLOCK = 32768


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the environment as its user would, who has no network and a key; return it."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    return {name: value for name, value in os.environ.items() if name.startswith(("WANDB_", "MLFLOW_"))}


def on_this_rank(environment: dict[str, str], function: Callable[[TrainConfig], Any], config: TrainConfig) -> None:
    """Call the function in this environment, which the server of ranks, started before, does not have."""
    os.environ.update(environment)
    function(config)


def wandb_records(folder: Path) -> Iterator[Any]:
    """Yield what offline runs in a folder have written, in the order of their starts: a log of LevelDB's form."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            left = _BLOCK - place % _BLOCK
            if left < 7:
                place += left
                continue
            length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or its last part
                yield Record.FromString(parts)
                parts = b""


def items(update: Any) -> dict[str, Any]:
    """Return keys and values of a record's items."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


def _tracked(folder: Path, faces: Path, *trackers: str) -> TrainConfig:
    sets = {"evaluate": {"sets": [str(faces / "held_out.bin")]}}
    return small_config(folder, faces / "train.rec", sets, {"log": {"trackers": list(trackers), "project": "faces"}})


def _recorded(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def test_a_run_of_two_ranks_that_is_resumed_is_one_run_of_each_tracker(
    tmp_path: Path, faces: Path, offline: dict[str, str]
) -> None:
    config = _tracked(tmp_path / "run", faces, "tensorboard", "wandb", "mlflow")
    run_ranks(on_this_rank, 2, offline, stop_after_four_steps, config)
    run_ranks(on_this_rank, 2, offline, losses_of_run, config)
    recorded, summary = _recorded(tmp_path / "run"), json.loads((tmp_path / "run" / "summary.json").read_text())

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("faces").experiment_id])
    assert (run.info.run_name, run.info.status) == (config.name, "FINISHED")
    assert {run.data.params[key] for key in ("backbone.name", "seed")} == {"tiny", "3"}
    assert run.data.metrics["summary/accuracy"] == summary["accuracy"]
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}
    assert history == {step: loss for step, loss in recorded.items() if step > 4}  # the first four were not recorded
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "summary.json", "loss.png"} <= artifacts

    records = list(wandb_records(tmp_path / "run"))
    assert len({record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}) == 1
    configured = items(next(each.run.config.update for each in records if each.run.config.update))
    assert (configured["backbone.name"], configured["seed"]) == ("tiny", 3)
    logged = [items(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    assert {each["step"]: each["train/loss"] for each in logged if "train/loss" in each} == pytest.approx(history)
    assert "held_out/accuracy" in set().union(*logged)
    told: dict[str, Any] = {}
    for record in records:
        told |= items(record.summary.update)
    assert told["accuracy"] == summary["accuracy"]


def test_no_key_is_written_anywhere(tmp_path: Path, faces: Path) -> None:
    config = _tracked(tmp_path / "run", faces, "wandb", "mlflow")
    config.train.steps = 1
    losses_of_run(config)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


class Broken:
    """A tracker whose server is gone from its second record on."""

    run_id = "1"

    def __init__(self, start: Start) -> None:
        self.took: list[int] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.took.append(step)
        if len(self.took) > 1:
            raise ConnectionError(f"https://user:{SECRET}@tracker.example/api refused\nmore")

    def show_picture(self, name: str, path: Path, step: int) -> None:
        raise ConnectionError

    def finish(self, summary: Mapping[str, Any]) -> None:
        raise ConnectionError

    def close(self, finished: bool) -> None:
        raise ConnectionError


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Return what arcdist's logger says."""
    monkeypatch.setattr(logging.getLogger("arcdist"), "propagate", True)
    return caplog


def test_a_tracker_that_fails_later_is_warned_of_once_and_without_its_password(
    tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    opened: list[Broken] = []

    def kind(start: Start) -> Tracker:
        opened.append(Broken(start))
        return opened[0]

    trackers = FanOut({"wandb": kind}, Start(tmp_path, "project", "run", {}), resumed=False)
    for step in (1, 2, 3):
        trackers.write(step, {"loss": 1.0})
    trackers.finish({"steps": 3})
    trackers.close()
    assert opened[0].took == [1, 2, 3]
    (warning,) = _warnings(heard)
    assert warning.startswith("wandb: ConnectionError: https://…@tracker.example/api refused; training goes on")


def test_a_tracker_that_does_not_begin_stops_a_new_run_and_no_other(
    tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    def kind(start: Start) -> Tracker:
        raise PermissionError("no key")

    start = Start(tmp_path, "project", "run", {})
    with pytest.raises(ConfigError, match="log.trackers: 'wandb': does not begin: PermissionError: no key"):
        FanOut({"wandb": kind}, start, resumed=False)
    FanOut({"wandb": kind}, start, resumed=True).write(1, {"loss": 1.0})
    assert "the run goes on without it" in _warnings(heard)[0]


def test_a_package_that_is_missing_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()  # what other runs leave is not the package
    code = (
        "import sys\n"
        "from arcdist.train.trackers import config\n"
        "sys.path[:] = [''] + [path for path in sys.path if 'site-packages' not in path]\n"
        "sys.path_importer_cache.clear()\n"
        "try: config.LogConfig(trackers=['wandb']).validate()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "ConfigError log.trackers: 'wandb': its package is not installed; pip install 'arcdist[wandb]'\n"


def test_an_unknown_tracker_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "log.trackers=[neptune]"]) == 2
    assert "log.trackers: 'neptune': must be one of tensorboard, wandb, mlflow" in capsys.readouterr().err
