"""Disks and memories that are full."""

import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import disturb, small_config, small_trainer, weights
from support import end_of_ranks, full_disk, run_ranks

from arcdist.checkpoint.manager import CheckpointManager
from arcdist.checkpoint.marker import CheckpointError
from arcdist.cli.main import main
from arcdist.data.torch_loader import Batch
from arcdist.runtime.world import RuntimeConfig, World, open_world
from arcdist.train.config import TrainConfig
from arcdist.train.memory import OutOfMemoryError, memory_advice
from arcdist.train.trainer import train


def _run_on_a_disk_that_is_full(config: TrainConfig, steps: range) -> list[str]:
    """Do a run in which no file can grow beyond 1,000 bytes in some steps; return the warnings of this rank."""
    trainer = small_trainer(config)
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("arcdist")
    logger.addHandler(handler)
    logger.disabled = False
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(step: int, batch: Batch) -> Batch:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if step in steps else most, most))
        return batch

    disturb(trainer, fill)
    trainer.run()
    return said


def test_a_disk_that_is_full_meanwhile_costs_a_checkpoint_and_no_step(tmp_path: Path, faces: Path) -> None:
    keep = {"checkpoint": {"keep": 3}}
    run_ranks(_run_on_a_disk_that_is_full, 2, small_config(tmp_path / "whole", faces / "train.rec", keep), range(0))
    config = small_config(tmp_path / "full", faces / "train.rec", keep)
    first, _ = run_ranks(_run_on_a_disk_that_is_full, 2, config, range(4, 6))
    lost = [line for line in first if line.startswith("NOT SAVED") and "step-000000004" in line]
    assert len(lost) == 1
    assert "training goes on, and the checkpoints before it stay" in lost[0]
    kept = sorted(path.name for path in (tmp_path / "full/checkpoints").glob("*"))
    assert kept == [".lock", "step-000000002", "step-000000006"]
    assert torch.equal(weights(tmp_path / "full"), weights(tmp_path / "whole"))
    lines = (tmp_path / "full/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.endswith("}")]
    assert {record["step"] for record in records} >= {1, 2, 3, 6}


def test_a_disk_that_is_full_at_the_end_is_told_and_the_same_command_finishes(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, keep = small_config(tmp_path, faces / "train.rec"), CheckpointManager.keep_weights

    def keep_on_a_full_disk(*arguments: Any) -> dict[str, Any]:
        with full_disk(1000):
            return keep(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "keep_weights", keep_on_a_full_disk)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be written: File too large; .*step-0"):
            small_trainer(config).run()
    assert not list(tmp_path.glob("*.partial"))
    small_trainer(config).run()
    assert (tmp_path / "model.safetensors").is_file()


def _run_without_memory(config: TrainConfig) -> str:
    """Do a run in which the process may not grow, with batches that make it; return what it said."""
    size = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + (600 << 20), -1))
    try:
        train(config, World(0, 1, 0, torch.device("cpu")))
    except OutOfMemoryError as error:
        return str(error)
    return "it was enough"


def test_a_host_without_memory_says_which_keys_need_less(tmp_path: Path, faces: Path) -> None:
    large = {"train": {"global_batch_size": 60_000, "micro_batch_size": 0}, "data": {"loader": {"prefetch": 4}}}
    (said,) = run_ranks(_run_without_memory, 1, small_config(tmp_path, faces / "train.rec", large))
    assert said.startswith("the host is out of memory: ")
    assert "train.micro_batch_size=30000 (now 60000" in said
    assert "data.loader.prefetch=2 (now 4)" in said
    assert "data.loader.workers" not in said  # there is one, and one is the least


@pytest.mark.parametrize(
    ("micro", "smaller"), [(9, "train.micro_batch_size=3 (now 9"), (15, "size=5 (now 15"), (5, "")]
)
def test_every_key_that_is_named_has_a_value_that_a_run_takes(
    tmp_path: Path, faces: Path, micro: int, smaller: str
) -> None:
    changes = {"train": {"global_batch_size": 90, "micro_batch_size": micro}, "data": {"loader": {"prefetch": 0}}}
    config = small_config(tmp_path, faces / "train.rec", changes)
    with pytest.raises(OutOfMemoryError) as raised, memory_advice(config, World(0, 2, 0, torch.device("cpu"))):
        raise MemoryError
    said = str(raised.value)
    assert smaller in said
    assert ("micro_batch_size" in said) == bool(smaller)
    assert "data.loader" not in said


def test_a_gpu_without_memory_says_which_keys_need_less(tmp_path: Path, faces: Path) -> None:
    config = small_config(tmp_path, faces / "train.rec")
    world = World(1, 2, 1, torch.device("cuda", 1))
    with pytest.raises(OutOfMemoryError) as raised, memory_advice(config, world):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    said = str(raised.value)
    assert said.startswith("GPU 1 is out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.; what needs less")
    assert "train.precision=bf16; " in said
    assert "train.micro_batch_size=2 (now 4" in said


def _train_with_few_files(arguments: list[str]) -> None:
    limit = len(os.listdir("/proc/self/fd")) + 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    sys.exit(main(["train", *arguments]))


def test_a_process_that_may_open_no_more_files_says_what_to_raise(tmp_path: Path, faces: Path) -> None:
    run = [f"data.path={faces}/train.rec", "data.image_size=32", "backbone=tiny", f"folder={tmp_path}/run"]
    ((code, said),) = end_of_ranks(_train_with_few_files, 1, tmp_path, ["data=recordio", *run])
    assert code == 1
    assert "raise that by ulimit -n" in said
    assert "Traceback" not in said


def _deterministic(config: TrainConfig) -> bool:
    world = open_world(RuntimeConfig(device="cpu", threads=1, keep_memory=False, deterministic=True))
    train(config, world)
    return torch.are_deterministic_algorithms_enabled()


def test_every_kernel_of_a_run_has_a_deterministic_form(tmp_path: Path, faces: Path) -> None:
    deep = {"head": {"sample_rate": 0.5, "subcenters": 2}, "losses": {"center": {"weight": 0.01}}}
    for name in ("once", "again"):
        assert run_ranks(_deterministic, 1, small_config(tmp_path / name, faces / "train.rec", deep)) == [True]
    assert torch.equal(weights(tmp_path / "once"), weights(tmp_path / "again"))
