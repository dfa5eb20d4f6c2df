"""Ranks that stand still: said with every rank's stack, and ended."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from small_runs import disturb, small_config, small_trainer
from support import end_of_ranks

from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.runtime import collectives, world
from arcdist.runtime.hang_watch import HangWatch
from arcdist.runtime.world import RuntimeConfig
from arcdist.train.config import TrainConfig

FOREVER_S = 600


def _run_with_a_sleeper(config: TrainConfig) -> None:
    trainer = small_trainer(config)

    def sleep(step: int, batch: Batch) -> Batch:
        if step == 3 and collectives.rank() == 1:
            time.sleep(FOREVER_S)
        return batch

    disturb(trainer, sleep)
    trainer.run()


def test_a_rank_that_is_stuck_in_a_step_makes_all_ranks_print_their_stacks_and_end(tmp_path: Path, faces: Path) -> None:
    config = small_config(tmp_path / "run", faces / "train.rec", {"runtime": {"step_timeout_s": 6}})
    (first, waiting), (second, stuck) = end_of_ranks(_run_with_a_sleeper, 2, tmp_path, config)
    assert (first, second) == (1, 1)
    assert "rank 0: step 3 takes longer than 6 s on " in waiting
    assert "waits for other ranks in all_gather" in waiting
    assert "rank 0:   " in waiting
    assert "_gather_packed" in waiting
    assert "rank 1: step 3 takes longer than 6 s on " in stuck
    assert "is in no collective, so the others wait for it" in stuck
    assert "test_hang_watch.py" in stuck
    assert "runtime.step_timeout_s=0" in stuck


def _run_whose_disk_stalls(config: TrainConfig) -> None:
    trainer = small_trainer(config)

    def stall(step: int, batch: Batch) -> Batch:
        if step == 3 and collectives.rank() == 1:
            os.pread = lambda *arguments: time.sleep(FOREVER_S)
        return batch

    disturb(trainer, stall)
    trainer.run()


def test_a_disk_that_stalls_ends_the_run_with_the_file_that_is_read(tmp_path: Path, faces: Path) -> None:
    at_once = {"runtime": {"step_timeout_s": 3}, "data": {"loader": {"prefetch": 0}}}
    config = small_config(tmp_path / "run", faces / "train.rec", at_once)
    (first, waiting), (second, stuck) = end_of_ranks(_run_whose_disk_stalls, 2, tmp_path, config)
    assert (first, second) == (1, 1)
    assert "rank 0: step 4 takes longer than 3 s" in waiting
    assert "rank 1: the batch of step 4 takes longer than 3 s" in stuck
    assert f" read of {faces / 'train.rec'}\n" in stuck


def _freeze() -> None:
    watch = HangWatch(1, collectives.rank())
    watch.open()
    watch.at("the step")
    if collectives.rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collectives.all_reduce_sum(torch.ones(1))


def test_a_rank_that_is_frozen_ends_the_others_with_the_collective_that_they_wait_in(tmp_path: Path) -> None:
    (first, said), (second, _) = end_of_ranks(_freeze, 2, tmp_path)
    assert first == 1
    assert second is None
    assert "the step takes longer than 1 s" in said
    assert "waits for other ranks in all_reduce" in said


def _hold_the_interpreter() -> None:
    watch = HangWatch(1, 0)
    watch.open()
    watch.at("the step")
    ctypes.PyDLL(None).sleep(FOREVER_S)  # PyDLL does not let go of it


def test_a_rank_whose_interpreter_is_held_ends_with_its_stack(tmp_path: Path) -> None:
    ((code, said),) = end_of_ranks(_hold_the_interpreter, 1, tmp_path)
    assert code == 1
    assert "_hold_the_interpreter" in said


def _suspend_once() -> None:
    watch = HangWatch(0.5, 0)
    watch.open()
    watch.at("the step")
    pid = os.getpid()
    if os.fork() == 0:
        time.sleep(7)  # past faulthandler's limit too
        os.kill(pid, signal.SIGCONT)
        os._exit(0)
    os.kill(pid, signal.SIGTSTP)
    time.sleep(FOREVER_S)


def test_while_ctrl_z_suspends_a_run_no_time_passes(tmp_path: Path) -> None:
    ((code, said),) = end_of_ranks(_suspend_once, 1, tmp_path)
    assert code == 1
    assert "the step takes longer than 0.5 s" in said  # of its own word, and not faulthandler's
    assert "_suspend_once" in said


def _close_in_time() -> None:
    watch = HangWatch(1, 0)
    watch.open()
    watch.at("one")
    watch.close()
    time.sleep(3)
    os._exit(7)


def test_after_its_end_nothing_is_watched(tmp_path: Path) -> None:
    assert end_of_ranks(_close_in_time, 1, tmp_path) == [(7, "")]


def _leave(which: str) -> None:
    world._LEAVING_S = 2.0  # ty: ignore
    if collectives.rank() == 1:
        if which == "a rank that does not come":
            time.sleep(FOREVER_S)
        threading.Thread(target=time.sleep, args=(FOREVER_S,)).start()
    world.close_world()


@pytest.mark.parametrize(
    ("which", "codes", "waits_in"),
    [("a rank that does not come", (1, None), "barrier"), ("a thread that does not return", (0, 1), "_shutdown")],
)
def test_a_hang_while_leaving_ends_with_its_stack(
    tmp_path: Path, which: str, codes: tuple["int | None", "int | None"], waits_in: str
) -> None:
    ends = end_of_ranks(_leave, 2, tmp_path, which)
    assert tuple(code for code, _ in ends) == codes
    assert waits_in in next(said for code, said in ends if code == 1)


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="runtime.step_timeout_s: -1"):
        RuntimeConfig(device="cpu", step_timeout_s=-1).validate()
