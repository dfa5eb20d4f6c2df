"""A disk that is slow slows a run, which says so, and changes nothing else."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from small_runs import losses_of_run, small_config

READ_S = 0.04  # 24 of them a step


def _record(folder: Path, name: str) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]


def test_a_slow_disk_is_reported_hangs_nothing_and_changes_no_loss(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike: dict[str, Any] = {
        "runtime": {"step_timeout_s": 20},
        "data": {"loader": {"prefetch": 0}},
        "checkpoint": {"every": 0},
    }
    undisturbed = losses_of_run(small_config(tmp_path / "fast", faces / "train.rec", alike))
    read: Callable[..., bytes] = os.pread

    def slowly(*arguments: int) -> bytes:
        time.sleep(READ_S)
        return read(*arguments)

    monkeypatch.setattr(os, "pread", slowly)
    assert losses_of_run(small_config(tmp_path / "slow", faces / "train.rec", alike)) == undisturbed
    waited, waited_before = (_record(tmp_path / folder, "data_wait_share") for folder in ("slow", "fast"))
    assert len(waited) == len(undisturbed) == 6
    assert mean(waited) > 0.5 > mean(waited_before)
