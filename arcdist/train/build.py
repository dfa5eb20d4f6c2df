"""The parts of a step, built as a run's configuration says."""

import torch

from arcdist.runtime import seeds
from arcdist.runtime.fully_sharded import described
from arcdist.runtime.precision import choose_precision
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.step import Step
from arcdist.train.teacher import Teacher


def build_step(
    config: TrainConfig, world: World, *, num_classes: int, epoch_size: int, teacher: Teacher | None = None
) -> Step:
    """Return a run's step, with backbone and centers as the seed gives them: alike for any number of ranks.

    Args:
        config: of the run, checked.
        world: this process's place.
        num_classes: of the data.
        epoch_size: samples of one pass over the data, which a schedule may count in.
        teacher: of a run that has one.
    """
    total_steps = config.train.total_steps(epoch_size)
    device = world.device
    precision = choose_precision(config.train.precision, device)
    torch.manual_seed(seeds.mix(config.seed, 0))
    backbone = config.backbone.build().to(device)
    if config.train.parallel == "fsdp":
        backbone = config.train.fsdp.shard(backbone, device)
    if described(backbone) is backbone:  # FSDP2 takes contiguous weights only
        backbone = backbone.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    margin = config.margin.build(num_classes, config.seed)
    head = config.head.build(
        *(config.backbone.embedding_dim, num_classes, margin, config.losses),
        *(precision, config.seed, device),
    )
    optimizer = config.optim.build(backbone, head.centers)
    center_update = None
    if config.head.fuses(precision, head):
        first_row = head.classes.start * head.subcenters
        center_update = config.optim.center_update(optimizer, head.centers, first_row, config.seed)
    return Step(
        *(backbone, head, optimizer),
        config.optim.schedule.build(total_steps, epoch_size / config.train.global_batch_size),
        *(config.optim.lr, config.seed, config.train, world, precision, center_update, teacher),
    )
