"""What a run's loss is made of is recorded part by part, alike on any number of ranks, and no step waits for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import losses_of_run, small_config, small_trainer
from support import run_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from arcdist.train.config import TrainConfig

PARTS = ("losses/softmax", "losses/center", "losses/intra", "losses/teacher")


def _with_parts(folder: Path, faces: Path, weight: float = 5.0) -> TrainConfig:
    rows = folder.parent / "rows.npy"
    np.save(rows, np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32))
    more: dict[str, Any] = {
        "teacher": {"embeddings": str(rows), "weight": weight},
        "losses": {"center": {"weight": 0.01}, "intra": {"weight": 2.0}},
    }
    return small_config(folder, faces / "train.rec", {"train": {"steps": 4, "log_every": 2}}, more)


def _records(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "loss" in record]


def test_the_parts_are_recorded_and_their_sum_is_the_loss_on_any_number_of_ranks(tmp_path: Path, faces: Path) -> None:
    for world_size in (1, 3):
        run_ranks(losses_of_run, world_size, _with_parts(tmp_path / f"run{world_size}", faces))
    alone, shared = _records(tmp_path / "run1"), _records(tmp_path / "run3")
    assert len(alone) == len(shared) == 2
    for one, other in zip(alone, shared):
        assert sum(one[name] for name in PARTS) == pytest.approx(one["loss"], rel=1e-5)
        assert all(one[name] > 0.01 for name in PARTS)
        assert [other[name] for name in PARTS] == pytest.approx([one[name] for name in PARTS], rel=1e-3)
    board = EventAccumulator(str(tmp_path / "run3" / "tensorboard")).Reload()
    for name in PARTS:
        assert [event.value for event in board.Scalars(name)] == pytest.approx([each[name] for each in shared])


def test_a_weight_changes_its_own_part_alone(tmp_path: Path, faces: Path) -> None:
    found = []
    for weight in (5.0, 10.0):
        trainer = small_trainer(_with_parts(tmp_path / str(weight), faces, weight))
        trainer.step(next(trainer._batches()))
        found.append({name: float(part) for name, part in trainer.step.loss_parts.items()})
    small, large = found
    assert large.pop("teacher") == pytest.approx(2 * small.pop("teacher"))
    assert large == pytest.approx(small)


def test_a_loss_of_one_part_is_recorded_once(tmp_path: Path, faces: Path) -> None:
    losses_of_run(small_config(tmp_path / "run", faces / "train.rec", {"train": {"steps": 1}}))
    (record,) = _records(tmp_path / "run")
    assert not [name for name in record if name.startswith("losses/")]


class _Reads(TorchDispatchMode):
    """Counts how often the host reads a number of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_reads_no_number_more_at_a_step_with_parts(tmp_path: Path, faces: Path) -> None:
    counts = []
    for config in (small_config(tmp_path / "one", faces / "train.rec"), _with_parts(tmp_path / "many", faces)):
        trainer = small_trainer(config)
        trainer.metrics.every = 1000
        batch = next(trainer._batches())
        with _Reads() as reads:
            loss = trainer.step(batch)
            trainer.metrics.record(1, loss, 0.1, {}, trainer.step.loss_parts)
        counts.append(reads.count)
    assert counts[0] == counts[1]
