"""Ranks that stand still: said with every rank's stack, and ended."""

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support  # noqa: F401  (so that the ranks begin with torch imported)
import torch
import torch.distributed as dist
from small_runs import disturb, small_config, small_trainer

from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.hang_watch import HangWatch
from arcdist.runtime.world import RuntimeConfig
from arcdist.train.config import TrainConfig

FOREVER_S = 600


def _rank(function: Callable[..., None], rank: int, world_size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    os.dup2(os.open(folder / f"rank{rank}.txt", os.O_CREAT | os.O_WRONLY), 2)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    function(*arguments)


def _end_of(function: Callable[..., None], world_size: int, folder: Path, *arguments: Any) -> list[tuple[Any, str]]:
    """Return the exit code of each rank and what it said; that of one which has stopped itself is None."""
    context = multiprocessing.get_context("forkserver")
    targets = [(function, rank, world_size, folder, arguments) for rank in range(world_size)]
    ranks = [context.Process(target=_rank, args=target, daemon=True) for target in targets]
    for process in ranks:
        process.start()
    try:
        ranks[0].join(200)
        ranks[-1].join(5)
        return [(process.exitcode, (folder / f"rank{n}.txt").read_text()) for n, process in enumerate(ranks)]
    finally:
        for process in ranks:
            process.kill()


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
    (first, waiting), (second, stuck) = _end_of(_run_with_a_sleeper, 2, tmp_path, config)
    assert (first, second) == (1, 1)
    assert "rank 0: step 3 takes longer than 6 s on " in waiting
    assert "waits for other ranks in all_gather" in waiting
    assert "rank 0:   " in waiting
    assert "_gather_packed" in waiting
    assert "rank 1: step 3 takes longer than 6 s on " in stuck
    assert "is in no collective, so the others wait for it" in stuck
    assert "test_hang_watch.py" in stuck


def _freeze() -> None:
    watch = HangWatch(1, collectives.rank())
    watch.open()
    watch.at("the step")
    if collectives.rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collectives.all_reduce_sum(torch.ones(1))


def test_a_rank_that_is_frozen_ends_the_others_with_the_collective_that_they_wait_in(tmp_path: Path) -> None:
    (first, said), (second, _) = _end_of(_freeze, 2, tmp_path)
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
    ((code, said),) = _end_of(_hold_the_interpreter, 1, tmp_path)
    assert code == 1
    assert "_hold_the_interpreter" in said


def _close_in_time() -> None:
    watch = HangWatch(1, 0)
    watch.open()
    watch.at("one")
    watch.close()
    time.sleep(3)
    os._exit(7)


def test_after_its_end_nothing_is_watched(tmp_path: Path) -> None:
    assert _end_of(_close_in_time, 1, tmp_path) == [(7, "")]


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="runtime.step_timeout_s: -1"):
        RuntimeConfig(device="cpu", step_timeout_s=-1).validate()
