"""A cell of a reproduced table: one loss with one seed, trained, judged, and left as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arcdist.checkpoint.folder import WEIGHTS
from arcdist.evaluate.angles import angle_statistics
from arcdist.evaluate.embed import embed
from arcdist.evaluate.genuine_people import genuine_people
from arcdist.evaluate.report import write_json
from arcdist.runtime import collectives
from arcdist.runtime.fully_sharded import whole
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.summary import machine
from arcdist.train.trainer import Trainer


def cell_path(folder: Path, method: str, seed: int) -> Path:
    """Return the file of a cell."""
    return folder / "cells" / f"{method}.seed{seed}.json"


def train_start(config: TrainConfig, world: World) -> None:
    """Train the net that cells begin with, unless its weights are there."""
    if not (Path(config.folder) / WEIGHTS).exists():
        Trainer(config, world).run()


def run_cell(stages: Sequence[TrainConfig], world: World, path: Path, about: dict[str, Any]) -> None:
    """Train the stages one after another in one run's folder, judge the result, and write the cell on rank 0.

    A cell that was stopped goes on from its newest checkpoint when it is run again.

    Args:
        stages: of the same folder, net and data; each goes on where the one before it ended, with more steps.
        path: of the cell's file.
        about: what else the file says.
    """
    for config in stages:
        trainer = Trainer(config, world)
        summary = trainer.run()
    angles = _angles(trainer)
    if world.is_first:
        sets = {name: scored.result.as_dict() for name, scored in trainer.scores.items()}
        told = {key: summary[key] for key in ("steps", "loss", "seconds", "images_per_s", "world_size")}
        write_json(path, about | told | machine() | {"angles_deg": angles, "sets": sets})


def _angles(trainer: Trainer) -> dict[str, dict[str, float | None]]:
    """Return the angles on the training set and on each evaluation set, in degrees."""
    dataset, head = trainer.dataset, trainer.step.head
    images = [dataset.read(sample)[1] for sample in range(len(dataset))]
    centers = head.centers.detach()[:, : head.embedding_dim]  # without the softmax's bias
    centers = centers if trainer.config.losses.softmax and head.subcenters == 1 else None
    labels = torch.from_numpy(dataset.labels())
    backbone = whole(trainer.step.backbone)
    found = {"train": _angles_of(backbone, trainer, images, labels, dataset.num_classes, centers)}
    for name, pairs in trainer.sets.items():
        images, labels = genuine_people(pairs)
        found[name] = _angles_of(backbone, trainer, images, labels, int(labels.max()) + 1, None)
    return found


def _angles_of(
    backbone: nn.Module,
    trainer: Trainer,
    images: list[bytes],
    labels: torch.Tensor,
    classes: int,
    centers: torch.Tensor | None,
) -> dict[str, float | None]:
    embeddings = embed(
        backbone,
        images,
        device=trainer.world.device,
        batch_size=trainer.config.evaluate.batch_size,
        flip=False,
        image_size=trainer.config.data.image_size,
        precision=trainer.step.precision,
    )
    mine = slice(collectives.rank(), None, collectives.world_size())
    device = trainer.world.device
    return angle_statistics(embeddings[mine].to(device), labels[mine].to(device), classes, centers).degrees()
