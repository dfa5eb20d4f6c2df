"""Runs of six steps on rendered faces, for tests of what befalls a run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from arcdist.data.torch_loader import Batch
from arcdist.runtime import collectives
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.trainer import Trainer

SMALL: dict[str, Any] = {
    "seed": 3,
    "backbone": {"name": "tiny", "embedding_dim": 32},
    "margin": {"scale": 16.0, "m2": 0.2},
    "optim": {"name": "adamw", "lr": 1e-3, "schedule": {"warmup_steps": 200}},
    "train": {"global_batch_size": 24, "micro_batch_size": 4, "steps": 6, "precision": "fp32", "log_every": 1},
    "checkpoint": {"every": 2, "background": False},
    "data": {"image_size": 32, "augment": {"flip": 0.5}, "loader": {"workers": 1}},
}


def small_config(folder: Path, rec: Path, *changes: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a run."""
    where = {"folder": str(folder), "data": {"path": str(rec)}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), SMALL, where, *changes))
    assert isinstance(config, TrainConfig)
    config.validate()
    return config


def small_trainer(config: TrainConfig) -> Trainer:
    """Return this rank's trainer."""
    return Trainer(config, World(collectives.rank(), collectives.world_size(), 0, torch.device("cpu")))


def losses_of_run(config: TrainConfig) -> list[float]:
    """Do a run on this rank and return the loss of every step, as rank 0 records them."""
    trainer = small_trainer(config)
    trainer.run()
    collectives.barrier()
    records = [json.loads(line) for line in (Path(config.folder) / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def stop_after_four_steps(config: TrainConfig) -> None:
    """Do the first four steps of a run on this rank, save, and leave it."""
    trainer = small_trainer(config)
    trainer.step.warm_up(32)
    for batch in trainer._batches():
        trainer.step(batch)
        if trainer.step.count == 4:
            trainer._save(wait=True)
            return


def disturb(trainer: Trainer, change: Callable[[int, Batch], Batch]) -> None:
    """Let ``change(step, batch)`` see every batch of this rank, just before its step (counted from 1)."""
    batches = trainer._batches

    def changed() -> Iterator[Batch]:
        for batch in batches():
            yield change(trainer.step.count + 1, batch)

    trainer._batches = changed  # ty: ignore[invalid-assignment]


def weights(folder: Path) -> torch.Tensor:
    """Return all numbers of a run's last backbone."""
    return torch.cat([t.double().flatten() for _, t in sorted(load_file(folder / "model.safetensors").items())])
