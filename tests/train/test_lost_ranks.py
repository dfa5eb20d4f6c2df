"""Ranks that go their own way: what becomes of the others."""

import os
from pathlib import Path

import torch
from small_runs import disturb, small_config, small_trainer
from support import end_of_ranks

from arcdist.data.torch_loader import Batch
from arcdist.runtime import collectives
from arcdist.train.config import TrainConfig


def _run_that_one_leaves(config: TrainConfig) -> None:
    trainer = small_trainer(config)

    def leave(step: int, batch: Batch) -> Batch:
        if step == 4 and collectives.rank() == 1:
            os._exit(0)
        return batch

    disturb(trainer, leave)
    trainer.run()


def test_a_rank_that_ends_well_before_the_run_is_done_ends_the_others_with_an_error(
    tmp_path: Path, faces: Path
) -> None:
    config = small_config(tmp_path / "run", faces / "train.rec")
    (first, _), (second, _) = end_of_ranks(_run_that_one_leaves, 2, tmp_path, config)
    assert (first, second) == (1, 0)
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == ["step-000000002"]
    assert not (tmp_path / "run/FINISHED.json").exists()


def _run_with_one_collective_more(config: TrainConfig) -> None:
    trainer = small_trainer(config)

    def add(step: int, batch: Batch) -> Batch:
        if step == 4 and collectives.rank() == 1:
            collectives.all_reduce_sum(torch.ones(1))
        return batch

    disturb(trainer, add)
    trainer.run()


def test_ranks_whose_collectives_differ_end_with_what_each_waits_in(tmp_path: Path, faces: Path) -> None:
    config = small_config(tmp_path / "run", faces / "train.rec", {"runtime": {"step_timeout_s": 3}})
    (first, one), (second, other) = end_of_ranks(_run_with_one_collective_more, 2, tmp_path, config)
    assert (first, second) == (1, 1)
    assert "waits for other ranks in all_gather" in one
    assert "waits for other ranks in all_reduce" in other
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == ["step-000000002"]
