"""Losses that pull an embedding to its class's center: center loss, intra-loss."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.heads.auxiliary.geometry import angle
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss, Rows
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows


@dataclass
class CenterLossConfig(AuxiliaryConfig):
    """Center loss (Wen et al. 2016): embeddings, not normalized, near the running mean of their class."""

    key = "losses.center"

    rate: float = field(default=0.5, metadata={"help": "α, how far a class's mean follows its embeddings, in [0, 1]"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"{self.key}.rate: {self.rate}: must be in [0, 1]; 0 never moves the means")

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "CenterLoss":
        """Return the loss, its state on ``device``."""
        self.validate()
        return CenterLoss(embedding_dim, num_classes, self.rate, device=device)


class CenterLoss(AuxiliaryLoss):
    """``1/2B · Σ_i ‖x_i − c_{y_i}‖²`` over the embeddings as they are (Wen et al., ECCV 2016, equation 2).

    ``c`` are means of its own, not the head's centers, and are not learned by gradient: once a step

        c_j ← c_j − α · Σ_{y_i = j} (c_j − x_i) / (1 + n_j)        (equation 4, n_j rows of class j in the step)

    The paper sums over the batch both here and in the softmax; we take the mean of both, so λ keeps its meaning.
    Means start at 0, where the authors' code draws them at random: they must not depend on the sharding.

    Memory: ``[S, D]`` for the means; a step's embeddings until ``end_step``. Communication: none.
    """

    means: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        rate: float = 0.5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.rate = rate
        classes = shard_rows(num_classes, collectives.rank(), collectives.world_size())
        self.register_buffer("means", torch.zeros(len(classes), embedding_dim, device=device, dtype=dtype))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def part(self, rows: Rows) -> Tensor:
        """Return the part of the rows whose class is on this rank; in training, keep them for ``end_step``."""
        if self.training:
            self._seen.append((rows.raw.detach(), rows.target))
        means = self.means[rows.target.clamp_min(0)] if len(self.means) else torch.zeros_like(rows.raw)
        squared = (rows.raw - means).square().sum(1)
        return torch.where(rows.target >= 0, squared, 0).sum() / (2 * len(squared))

    def sharded_tensors(self) -> dict[str, Tensor]:
        """Return the means."""
        return {"means": self.means}

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the means of the step's classes."""
        if self._seen and len(self.means):
            embeddings = torch.cat([raw for raw, _ in self._seen]).to(self.means.dtype)
            target = torch.cat([target for _, target in self._seen])
            row = target.clamp_min(0)
            # Rows of other ranks' classes stay in, at no weight: to pick this rank's own would make the host wait.
            owned = (target >= 0).to(self.means.dtype)
            count = torch.zeros_like(self.means[:, 0]).index_add_(0, row, owned)
            share = self.rate * owned / (1 + count[row])
            self.means.index_add_(0, row, share[:, None] * (embeddings - self.means[row]))
        self._seen.clear()


@dataclass
class IntraLossConfig(AuxiliaryConfig):
    """Intra-loss (ArcFace paper, equation 5): small angles to the own center."""

    key = "losses.intra"

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "IntraLoss":
        """Return the loss."""
        self.validate()
        return IntraLoss()


class IntraLoss(AuxiliaryLoss):
    """``1/πB · Σ_i θ_{y_i}``, the mean angle to the own center in half turns (arXiv:1801.07698, equation 5).

    A row counts on the rank that holds its class: there alone ``cosine`` has a gradient, so it is counted once.
    """

    needs_cosine = True

    def part(self, rows: Rows) -> Tensor:
        """Return the part of the rows whose class is on this rank."""
        theta = angle(rows.cosine)
        return torch.where(rows.target >= 0, theta, 0).sum() / (math.pi * len(theta))
