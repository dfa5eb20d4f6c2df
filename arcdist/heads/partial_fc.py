"""The margin softmax with its class centers sharded over the ranks (Partial FC, arXiv:2203.15565)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.errors import ConfigError, DataError
from arcdist.heads.sampling import drawn_classes
from arcdist.margins import Combined, Margin
from arcdist.ops.margin_logsumexp import margin_logsumexp
from arcdist.runtime import collectives, seeds
from arcdist.runtime.sharding import shard_rows

_INITIAL_STD = 0.01
_INITIAL_BLOCK = 256  # rows of one generator; a shard computes at most so many rows in vain at either end


@dataclass
class PartialFCConfig:
    """The sharded margin softmax."""

    sample_rate: float = field(
        default=1.0, metadata={"help": "share of the classes in a step's softmax, in (0, 1]; a batch's own always are"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not 0 < self.sample_rate <= 1:
            raise ConfigError(f"head.sample_rate: {self.sample_rate}: must be in (0, 1]; 1 is the whole softmax")

    def build(
        self, embedding_dim: int, num_classes: int, margin: Margin, seed: int, device: torch.device
    ) -> "PartialFC":
        """Return the head with this rank's centers on ``device``."""
        self.validate()
        return PartialFC(embedding_dim, num_classes, margin, self.sample_rate, seed, device=device)


class PartialFC(nn.Module):
    """The mean margin-softmax loss of the global batch, every rank scoring its own classes.

    Works without a process group, as a world of one. Loss and gradients do not depend on the number of ranks.

    Args:
        embedding_dim: ``D``.
        num_classes: ``C``, of all ranks.
        margin: from cosine to target logit; ArcFace (64, 0.5) by default.
        sample_rate: share of the classes in a step's softmax. Classes that are not drawn get a zero gradient.
        seed: of the initial centers and of the draws.

    Memory: this rank's centers, their unit rows and their gradient; ``B · block`` logits.
    Communication: an all-gather of the embeddings and one of the labels, an all-gather of two numbers a row; in the
    backward pass a reduce-scatter of the embeddings' gradient. The centers' gradient is never communicated.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: Margin | None = None,
        sample_rate: float = 1.0,
        seed: int = 0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes: {num_classes}: must be at least 1")
        PartialFCConfig(sample_rate).validate()
        self.embedding_dim, self.num_classes = embedding_dim, num_classes
        self.margin = margin if margin is not None else Combined()
        self.sample_rate, self.seed = sample_rate, seed
        self.classes = shard_rows(num_classes, collectives.rank(), collectives.world_size())
        self.centers = nn.Parameter(_initial_centers(self.classes, embedding_dim, seed).to(device, dtype))
        self._drawn: Tensor | None = None
        self._draws = 0

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"{self.num_classes} × {self.embedding_dim}, rows {self.classes.start}:{self.classes.stop} here"

    def draw(self, labels: Tensor, step: int) -> None:
        """Choose the classes of step ``step``, for every ``forward`` until the next draw.

        A step of several micro-batches draws once, for all of its labels; without a call each ``forward`` draws for
        its own. Does nothing at ``sample_rate = 1``.

        Args:
            labels: this rank's, int64, the same number on every rank.
            step: the optimizer step; the draw is a function of (seed, step, class).
        """
        if self.sample_rate < 1:
            everyones = collectives.gather_rows(labels)
            self._drawn = drawn_classes(everyones, self.classes, self.sample_rate, self.seed, step)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the global batch, a scalar, the same on every rank.

        After ``backward`` the centers hold their gradient of this loss, and ``embeddings`` world-size times
        theirs: DDP then takes the mean over ranks of the backbone's gradients, which is the gradient of the loss.

        Args:
            embeddings: this rank's rows ``[b, D]``, not normalized, the same ``b`` on every rank. Half precision is
                widened to the centers' dtype.
            labels: ``[b]`` int64, global class ids in [0, C).

        Errors: DataError for a label outside of [0, C), when labels are on the CPU (on a GPU the look would make
        the host wait; arcdist's loaders look before the batch gets there).
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = _ScaleGradient.apply(embeddings.to(self.centers.dtype), collectives.world_size())
            unit = F.normalize(collectives.gather_rows(rows))
            labels = collectives.gather_rows(labels)
            centers, target = self._own(labels)
            unit_centers = F.normalize(centers)
            owned = target >= 0
            if len(unit_centers):
                cosine = (unit * unit_centers[target.clamp_min(0)]).sum(1)
                target_logit = torch.where(owned, self.margin.target_logit(cosine), 0)
            else:
                target_logit = unit.new_zeros(len(unit))
            lse = margin_logsumexp(unit, unit_centers, target, target_logit, self.margin.scale)
            lse, target_logit = collectives.logsumexp_and_sum(lse, target_logit)
            return (lse - target_logit).mean()

    def _own(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centers of this step on this rank, ``[S, D]``, and each label's row in them or −1."""
        target = labels - self.classes.start
        target = torch.where((target >= 0) & (target < len(self.classes)), target, -1)
        if self.sample_rate == 1:
            return self.centers, target
        drawn = self._drawn
        if drawn is None:
            drawn = drawn_classes(labels, self.classes, self.sample_rate, self.seed, self._draws)
            self._draws += 1
        if len(self.classes):
            row_of_class = drawn.cumsum(0) - 1
            target = torch.where(target >= 0, row_of_class[target.clamp_min(0)], -1)
        return self.centers[drawn], target

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"expected embeddings [b, {self.embedding_dim}] and labels [b], "
                f"got {list(embeddings.shape)} and {list(labels.shape)}"
            )
        if labels.device.type == "cpu" and labels.numel() and not 0 <= labels.min() <= labels.max() < self.num_classes:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            raise DataError(f"label {int(wrong[0])}: must be in [0, {self.num_classes}), the classes of this head")


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor if ctx.factor != 1 else gradient, None


def _initial_centers(classes: range, embedding_dim: int, seed: int) -> Tensor:
    """Return normal rows for ``classes``, ``[S, D]`` float32: a row depends on its class, not on the shard."""
    first, last = classes.start // _INITIAL_BLOCK, -(-classes.stop // _INITIAL_BLOCK)
    if not classes:
        return torch.empty(0, embedding_dim)
    rows = torch.empty(len(classes), embedding_dim)
    for block in range(first, last):
        draws = seeds.generator(seed, "initial centers", block)
        normal = torch.randn(_INITIAL_BLOCK, embedding_dim, generator=draws) * _INITIAL_STD
        start = block * _INITIAL_BLOCK
        inside = range(max(start, classes.start), min(start + _INITIAL_BLOCK, classes.stop))
        rows[inside.start - classes.start : inside.stop - classes.start] = normal[
            inside.start - start : inside.stop - start
        ]
    return rows
