"""The toy of the ArcFace paper's Figure 3: eight people in two dimensions, under the losses that led to ArcFace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from arcdist.data.synthetic import SyntheticConfig, render
from arcdist.errors import ConfigError
from arcdist.evaluate.angles import AngleStatistics, angle_statistics
from arcdist.heads import PartialFC
from arcdist.heads.auxiliary.centers import CenterLoss
from arcdist.heads.auxiliary.protocol import AuxiliaryLoss
from arcdist.margins import Combined, Margin
from arcdist.margins.unnormalized import ASoftmax, Softmax

PEOPLE, DIM = 8, 2
_SIZE_PX = 32
_BATCH = 128
_SCALE = 16.0
_LEARNING_RATE = 1.5e-3
_MARGIN_GROWS = 0.5  # over this share of the steps, from none: a margin from the start lets classes lie on one another


@dataclass
class ToyConfig:
    """How long each loss is trained, on how many images."""

    steps: int = field(default=400, metadata={"help": "of each loss, 128 images each; as many of softmax before them"})
    images: int = field(default=400, metadata={"help": "rendered ones of each of the eight people"})
    seed: int = field(default=0, metadata={"help": "of people, weights and batches"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.steps < 1 or self.images < 1:
            raise ConfigError(f"steps: {self.steps}, images: {self.images}: must be at least 1")


@dataclass(frozen=True, eq=False)
class Toy:
    """Where a loss puts eight people."""

    embeddings: Tensor
    """``[N, 2]``, of the training images."""
    centers: Tensor
    """``[8, 2]``, the head's."""
    labels: Tensor
    """``[N]`` int64."""

    def statistics(self) -> AngleStatistics:
        """Return the angles of the paper's Table 3."""
        return angle_statistics(self.embeddings, self.labels, PEOPLE, self.centers)


LOSSES: dict[str, Callable[[], tuple[Margin, float]]] = {
    "Softmax": lambda: (Softmax(), 0.0),
    "Center loss, λ = 0.001": lambda: (Softmax(), 0.001),
    "Center loss, λ = 0.01": lambda: (Softmax(), 0.01),
    "Center loss, λ = 0.1": lambda: (Softmax(), 0.1),
    "Center loss, λ = 1": lambda: (Softmax(), 1.0),
    "Norm-softmax": lambda: (Combined(scale=_SCALE, m2=0.0), 0.0),
    "A-Softmax, m = 4": lambda: (ASoftmax(), 0.0),
    "CosFace, m = 0.2": lambda: (Combined(scale=_SCALE, m2=0.0, m3=0.2), 0.0),
    "ArcFace, m = 0.3": lambda: (Combined(scale=_SCALE, m2=0.3), 0.0),
}
"""By name, the margin and the weight of the center loss."""


def train_toy(config: ToyConfig, progress: Callable[[str], None] = lambda name: None) -> dict[str, Toy]:
    """Return where each loss puts the people.

    All go on from one net, which the softmax has trained before: from random weights, in two dimensions, classes that
    begin on one another may never part, whatever the loss.

    Args:
        progress: called with each loss's name when it is done.
    """
    config.validate()
    people = SyntheticConfig(image_size=_SIZE_PX, seed=config.seed + 1)
    pixels = np.stack([render(people, person, image) for person in range(PEOPLE) for image in range(config.images)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    labels = torch.arange(PEOPLE).repeat_interleave(config.images)
    torch.manual_seed(config.seed)
    net, head = _net(), PartialFC(DIM, PEOPLE, Softmax(), seed=config.seed)
    turns = torch.arange(PEOPLE) * 2 * math.pi / PEOPLE  # no two people begin in one direction
    head.centers.detach()[:, :DIM] = torch.stack([turns.cos(), turns.sin()], 1)
    _train(net, head, images, labels, config)
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first_centers, means = head.centers.detach()[:, :DIM].clone(), _means(net, images)
    progress("start")

    toys = {}
    for name, loss in LOSSES.items():
        margin, weight = loss()
        auxiliary: dict[str, tuple[float, AuxiliaryLoss]] = {}
        if weight:
            center_loss = CenterLoss(DIM, PEOPLE)
            center_loss.means.copy_(means)
            auxiliary["center"] = (weight, center_loss)
        head = PartialFC(DIM, PEOPLE, margin, seed=config.seed, auxiliary=auxiliary)
        head.centers.detach()[:, :DIM] = first_centers
        net.load_state_dict(start)
        _train(net, head, images, labels, config)
        toys[name] = Toy(_embed(net, images), head.centers.detach()[:, :DIM].clone(), labels)
        progress(name)
    return toys


def _net() -> nn.Sequential:
    """Return convolutions and a linear layer to two dimensions, without a BatchNorm that would shape them."""

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        layers = ((inputs, outputs, 2), (outputs, outputs, 1))
        convolutions = [nn.Conv2d(i, o, 3, stride, 1, bias=False) for i, o, stride in layers]
        return [layer for each in convolutions for layer in (each, nn.BatchNorm2d(outputs), nn.PReLU(outputs))]

    side = _SIZE_PX // 8
    flat = [nn.Flatten(), nn.Linear(64 * side * side, 128, bias=False), nn.BatchNorm1d(128), nn.PReLU(128)]
    return nn.Sequential(*stage(3, 16), *stage(16, 32), *stage(32, 64), *flat, nn.Linear(128, DIM))


def _train(net: nn.Sequential, head: PartialFC, images: Tensor, labels: Tensor, config: ToyConfig) -> None:
    net.train()
    draws = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.Adam([*net.parameters(), head.centers], _LEARNING_RATE)
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * step / config.steps)) / 2
        head.margin.strength = min(1.0, step / (_MARGIN_GROWS * config.steps))
        rows = torch.randint(len(images), [_BATCH], generator=draws)
        flipped = torch.rand(_BATCH, generator=draws) < 0.5
        batch = torch.where(flipped[:, None, None, None], images[rows].flip(3), images[rows])
        head.begin_step(step, labels[rows])
        optimizer.zero_grad()
        head(net(batch), labels[rows]).backward()
        optimizer.step()
        head.end_step()


def _means(net: nn.Sequential, images: Tensor) -> Tensor:
    return _embed(net, images).unflatten(0, (PEOPLE, -1)).mean(1)


@torch.no_grad()
def _embed(net: nn.Sequential, images: Tensor) -> Tensor:
    net.eval()
    return torch.cat([net(part) for part in images.split(_BATCH)])
