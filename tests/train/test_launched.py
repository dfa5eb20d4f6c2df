"""Runs under torchrun: what signals, deaths and new nodes do to them."""

import json
import os
import signal
from pathlib import Path

import pytest
from launching import ForkedLaunch

from arcdist.bench.faults_run import ONE_NODE, Subject, all_gone
from arcdist.bench.launched import Launched
from arcdist.checkpoint.marker import read_marker


def _codes(run: Launched) -> list[int]:
    """Return the codes that the ranks have ended with."""
    return [int(path.read_text().split()[1]) for path in run.pids.iterdir()]


@pytest.mark.torchrun
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1], ids=lambda sent: sent.name)
def test_a_signal_to_torchrun_ends_every_rank_with_0_after_the_same_step_which_is_saved(tmp_path: Path, sent) -> None:
    subject = Subject(tmp_path, 1000, ForkedLaunch)
    with subject.start("run", *ONE_NODE, "--nproc-per-node=2") as run:
        run.wait_for("step 3", lambda: run.step() >= 3, 60)
        os.kill(run.pid, sent)
        assert run.wait(30) == 1  # torchrun says so of any run that it was told to end
        assert _codes(run) == [0, 0]
        stopped = json.loads((run.folder / "STOPPED.json").read_text())
    assert (stopped["step"], stopped["signal"]) == (run.step(), sent.name)
    assert read_marker(tmp_path / f"run/checkpoints/step-{stopped['step']:09d}")["step"] == stopped["step"]


@pytest.mark.torchrun
def test_a_rank_restarted_into_the_store_of_the_dead_says_what_to_set_and_does_not_wait(tmp_path: Path) -> None:
    subject = Subject(tmp_path, 1000, ForkedLaunch)
    shared = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "0"}
    with subject.start("run", *ONE_NODE, "--nproc-per-node=2", "--max-restarts=1", environment=shared) as run:
        run.wait_for("step 3", lambda: run.step() >= 3, 60)
        os.kill(run.ranks()[1], signal.SIGKILL)
        assert run.wait(20) == 1
        assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment" in run.said()


@pytest.mark.torchrun
def test_the_ranks_of_a_torchrun_that_was_killed_save_and_end(tmp_path: Path) -> None:
    subject = Subject(tmp_path, 1000)
    with subject.start("run", *ONE_NODE, "--nproc-per-node=2") as run:
        run.wait_for("step 3", lambda: run.step() >= 3, 60)
        ranks = run.ranks()
        os.kill(run.pid, signal.SIGKILL)
        assert all_gone(ranks.values(), 30)
        assert json.loads((run.folder / "STOPPED.json").read_text())["step"] == run.step()
