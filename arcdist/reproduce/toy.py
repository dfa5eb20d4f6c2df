"""The two-dimensional toy of the ArcFace paper's Figure 3: eight people, embeddings that can be drawn as they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from arcdist.backbones import create_backbone
from arcdist.data.synthetic import SyntheticConfig, render
from arcdist.errors import ConfigError
from arcdist.evaluate.angles import angle_statistics
from arcdist.evaluate.report import write_json
from arcdist.heads import LossesConfig, PartialFC
from arcdist.margins import CombinedConfig, MarginConfig
from arcdist.margins.unnormalized import ASoftmaxConfig, SoftmaxConfig

DIM = 2


@dataclass(frozen=True)
class ToyLoss:
    """A panel of the toy: a margin, and how much center loss beside it."""

    label: str
    margin: MarginConfig
    center_weight: float = 0.0


_SCALE = 16.0  # of unit embeddings; with 64 eight classes are told apart at once, and nothing moves any more
LOSSES = (
    ToyLoss("Softmax", SoftmaxConfig()),
    ToyLoss("Center loss, λ = 0.01", SoftmaxConfig(), 0.01),
    ToyLoss("Center loss, λ = 0.1", SoftmaxConfig(), 0.1),
    ToyLoss("Center loss, λ = 1", SoftmaxConfig(), 1.0),
    ToyLoss("Norm-softmax", CombinedConfig(scale=_SCALE, m2=0.0)),
    ToyLoss("A-Softmax, m = 4", ASoftmaxConfig(m=4.0)),
    ToyLoss("CosFace, m = 0.2", CombinedConfig(scale=_SCALE, m2=0.0, m3=0.2)),
    ToyLoss("ArcFace, m = 0.3", CombinedConfig(scale=_SCALE, m2=0.3)),
)


@dataclass
class ToyConfig:
    """What ``arcdist reproduce toy`` is told."""

    identities: int = field(default=8, metadata={"help": "people"})
    images_per_identity: int = field(default=100, metadata={"help": "rendered images of each"})
    image_size: int = field(default=32, metadata={"help": "height and width in pixels"})
    steps: int = field(default=300, metadata={"help": "optimizer steps of each loss"})
    batch_size: int = field(default=64, metadata={"help": "images of a step"})
    seed: int = field(default=0, metadata={"help": "of people, weights and order"})
    picture: str = field(default="runs/toy/toy.png", metadata={"help": "where the picture goes, .png or .svg"})
    json: str = field(default="", metadata={"help": "file for the angles"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key, low in (("identities", 2), ("images_per_identity", 2), ("steps", 1), ("batch_size", 2)):
            if getattr(self, key) < low:
                raise ConfigError(f"{key}: {getattr(self, key)}: must be at least {low}")


@dataclass(frozen=True)
class ToyResult:
    """What a loss has made of the people: embeddings ``[N, 2]``, labels ``[N]``, centers ``[C, 2]``, mean angles."""

    label: str
    embeddings: np.ndarray
    labels: np.ndarray
    centers: np.ndarray
    angles_deg: dict[str, float | None]


def run_toy(config: ToyConfig) -> list[ToyResult]:
    """Train every loss on the same people from the same weights, draw them side by side, and return the results."""
    from arcdist.evaluate.plots_toy import toy_picture  # matplotlib takes a second to import

    config.validate()
    images, labels = _people(config)
    console = Console(stderr=True)
    results = [_train(config, loss, images, labels) for loss in track(LOSSES, "losses", console=console)]
    Path(config.picture).parent.mkdir(parents=True, exist_ok=True)
    panels = [(r.label, r.embeddings, r.labels, r.centers, r.angles_deg) for r in results]
    toy_picture(config.picture, panels)
    if config.json:
        write_json(config.json, {result.label: result.angles_deg for result in results})
    return results


def _people(config: ToyConfig) -> tuple[Tensor, Tensor]:
    """Return the images ``[N, 3, H, W]`` in [-1, 1] and their labels."""
    faces = SyntheticConfig(config.identities, config.images_per_identity, config.seed, 0, config.image_size)
    labels = torch.arange(config.identities).repeat_interleave(config.images_per_identity)
    number = torch.arange(config.images_per_identity).repeat(config.identities)
    pixels = np.stack([render(faces, int(who), int(which)) for who, which in zip(labels, number)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub(127.5).div(127.5), labels


def _train(config: ToyConfig, loss: ToyLoss, images: Tensor, labels: Tensor) -> ToyResult:
    torch.manual_seed(config.seed)
    backbone = create_backbone("tiny", DIM)
    # The last BatchNorm would pull the mean of all people to the origin; the papers' nets end in a full connection.
    backbone.features = nn.Identity()
    losses = LossesConfig()
    losses = replace(losses, center=replace(losses.center, weight=loss.center_weight))
    auxiliary = losses.build(DIM, config.identities, torch.device("cpu"))
    margin = loss.margin.build(config.identities, config.seed)
    head = PartialFC(DIM, config.identities, margin, seed=config.seed, auxiliary=auxiliary)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=config.steps, pct_start=0.2)
    draw = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        margin.strength = min(1.0, 2 * step / config.steps)
        batch = torch.randint(len(labels), (config.batch_size,), generator=draw)
        optimizer.zero_grad(set_to_none=True)
        head(backbone(images[batch]), labels[batch]).backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    backbone.eval()
    with torch.no_grad():
        embeddings = torch.cat([backbone(part) for part in images.split(256)])
    centers = head.centers.detach()[:, :DIM]
    angles = angle_statistics(embeddings, labels, config.identities, centers).degrees()
    return ToyResult(loss.label, embeddings.numpy(), labels.numpy(), centers.numpy(), angles)
