"""What a head gives to an auxiliary loss, and what it asks of it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from arcdist.errors import ConfigError
from arcdist.runtime.sharding import shard_rows


@dataclass(frozen=True)
class Rows:
    """The rows of one round's global batch, and this rank's centers.

    Attributes:
        raw: ``[B, D]``, the gathered embeddings, with gradient.
        unit: ``[B, D]``, the same at length 1.
        norm: ``[B]``, their lengths.
        labels: ``[B]`` int64, global class ids.
        cosine: ``[B]``, to the own centers, joined over ranks; its gradient ends in this rank's centers, so where
            ``target`` is −1 it counts as a constant.
        target: ``[B]`` int64, the row's class among this rank's centers, or −1 where another rank has it.
        centers: ``[S, D]``, this rank's centers, one a class, not normalized, with gradient; ``S`` may be 0.
        classes: the global ids of the centers.
        rank: this rank.
        world_size: the number of ranks.
    """

    raw: Tensor
    unit: Tensor
    norm: Tensor
    labels: Tensor
    cosine: Tensor
    target: Tensor
    centers: Tensor
    classes: range
    rank: int
    world_size: int

    @property
    def anchors(self) -> range:
        """The rows that this rank acts for, where a loss is shared out by row."""
        return shard_rows(len(self.labels), self.rank, self.world_size)


class AuxiliaryLoss(nn.Module, ABC):
    """A loss over the embeddings and centers of a global batch, beside the margin softmax or in its place.

    The sum of the ranks' parts is the loss. A rank differentiates its part alone: the gather's backward adds up what
    the ranks say of an embedding, and a center is on one rank only. Every part depends on its inputs through autograd,
    also where a rank has nothing to add, so that no rank waits for another in the backward pass.

    A loss over pairs sees those of one round, like the margin softmax: pairs across the micro-batches of a step do not
    exist, but pairs across ranks do.

    Attributes:
        touches_centers: whether the loss has a gradient for ``centers`` themselves, of all classes, drawn for the step
            or not; that by way of ``cosine`` is apart.
        needs_cosine: whether the loss reads ``cosine``, which a run without the margin softmax else need not compute.
    """

    touches_centers: bool = False
    needs_cosine: bool = False

    @abstractmethod
    def part(self, rows: Rows) -> Tensor:
        """Return this rank's part of the loss, a scalar. Every rank calls it, at the same point."""

    def sharded_tensors(self) -> dict[str, Tensor]:
        """Return the state that is sharded as the head's centers are: row j belongs to class ``classes.start + j``."""
        return {}

    def end_step(self) -> None:
        """Move the state by what the rounds of a step have shown."""


@dataclass
class AuxiliaryConfig(ABC):
    """What every auxiliary loss has: how much it counts.

    Attributes:
        key: of its group in a run's configuration.
        touches_embeddings: whether a net could learn from this loss alone.
    """

    key = "losses"
    touches_embeddings = True

    weight: float = field(default=0.0, metadata={"help": "of this loss in the sum; 0: without it"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        self.check_number("weight", at_least=0)

    def check_number(self, name: str, at_least: float = -math.inf, above: float = -math.inf) -> None:
        """Raise ConfigError where a field is no number, below ``at_least``, or not above ``above``."""
        value: float = getattr(self, name)
        if not (math.isfinite(value) and value >= at_least and value > above):
            limit = f"a number above {above}" if above > -math.inf else f"a number from {at_least} on"
            raise ConfigError(f"{self.key}.{name}: {value}: must be {limit}")

    def check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Raise ConfigError where a field is none of the choices."""
        value: str = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{self.key}.{name}: {value!r}: must be one of {', '.join(choices)}")

    @abstractmethod
    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> AuxiliaryLoss:
        """Return the loss, its state on ``device``."""
