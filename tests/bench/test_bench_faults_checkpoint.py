"""``arcdist bench kills``: saves that are killed."""

import json
import random
from pathlib import Path

import pytest

from arcdist.bench import faults_checkpoint
from arcdist.bench.faults_checkpoint import KillsConfig
from arcdist.checkpoint.lock import RunLock
from arcdist.checkpoint.marker import CheckpointError
from arcdist.cli.main import main


def test_a_save_that_is_killed_leaves_a_whole_checkpoint_and_no_torn_one(tmp_path: Path) -> None:
    assert main(["bench", "kills", "kills=6", "numbers=200000", "progress=false", "--json", f"{tmp_path}/k.json"]) == 0
    found = json.loads((tmp_path / "k.json").read_text())
    assert (found["kills"], found["torn"], found["lost"], found["back"]) == (6, 0, 0, 0)
    assert found["while_writing"] + found["new_checkpoints"] > 0


def test_a_process_that_cannot_save_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="ended by itself with 1"):
        faults_checkpoint._kill_one(tmp_path, 1, random.Random(0), 0.1, KillsConfig(numbers=1000))
    del held
