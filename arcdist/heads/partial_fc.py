"""The margin softmax with its class centers sharded over the ranks (Partial FC, arXiv:2203.15565)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.errors import ConfigError, DataError
from arcdist.heads.auxiliary.protocol import AuxiliaryLoss, Rows
from arcdist.heads.sampling import drawn_rows
from arcdist.margins import Combined, Margin
from arcdist.ops.margin_logsumexp import CentersGradient, Formula, Tuning, margin_logsumexp, own_cosines
from arcdist.runtime import collectives, seeds
from arcdist.runtime.groups import class_groups
from arcdist.runtime.sharding import shard_rows

_INITIAL_STD = 0.01
_INITIAL_BLOCK = 256  # rows of one generator; a shard computes at most so many rows in vain at either end


class RowUpdate(Protocol):
    """What an optimizer does to some rows of the centers at a time."""

    def begin(self, rows: Tensor | None) -> None:
        """Start a step that scores these rows (int64, rising; None: all), before it does."""
        ...

    def apply(self, rows: slice | Tensor, gradient: Tensor) -> None:
        """Change some of these rows in place by their gradient ``[n, D]``."""
        ...

    def end(self) -> None:
        """End the step."""
        ...


class PartialFC(nn.Module):
    """The mean margin-softmax loss of the global batch, every rank scoring its own classes.

    Works without a process group, as a world of one. Loss and gradients do not depend on the number of ranks.

    Args:
        embedding_dim: ``D``.
        num_classes: ``C``, of all ranks.
        margin: from cosine to loss; ArcFace (64, 0.5) by default. A submodule: its state is the head's.
        sample_rate: share of the classes in a step's softmax. Classes that are not drawn get a zero gradient.
        seed: of the initial centers and of the draws.
        subcenters: ``K`` centers a class, the nearest of which counts.
        tuning: how the logits are computed.
        softmax: weight of the margin softmax in the loss; 0: without it.
        auxiliary: what else is in the loss: by name, a weight and the loss. Submodules too.
        group_size: neighboring ranks that share the classes; every such group holds them all. 0: one group.

    ``centers`` are this rank's, ``[S · K, D]``, the K of a class one after another; for a margin with a bias
    ``[S, D + 1]``, whose last column it is. ``own_cosine`` is ``[B]``, of the rows of all ranks in the last ``forward``
    to their own centers; None before it, and where the margin takes no cosines. ``loss_parts`` are ``[k]``, weighted
    and detached: what the loss of the last ``forward`` is the sum of, by ``part_names``.

    Memory: this rank's centers; ``B · block`` logits; what ``tuning`` keeps; the centers' gradient, unless ``fuse`` has
    been called.
    Communication: an all-gather of embeddings and labels, in the embeddings' dtype; two all-reduces of three numbers a
    row; in the backward pass a reduce-scatter of the embeddings' gradient. That of the centers is never communicated.
    With several groups all this is within a group; three numbers a row are gathered from the others, so that loss and
    gradients stay those of the global batch, and the centers' gradient is summed over the groups. That is less where a
    rank holds fewer classes than the global batch has rows.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: Margin | None = None,
        sample_rate: float = 1.0,
        seed: int = 0,
        *,
        subcenters: int = 1,
        tuning: Tuning | None = None,
        softmax: float = 1.0,
        auxiliary: Mapping[str, tuple[float, AuxiliaryLoss]] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        group_size: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes: {num_classes}: must be at least 1")
        if not 0 < sample_rate <= 1:
            raise ConfigError(f"head.sample_rate: {sample_rate}: must be in (0, 1]; 1 is the whole softmax")
        if subcenters < 1:
            raise ConfigError(f"head.subcenters: {subcenters}: must be at least 1")
        self.embedding_dim, self.num_classes, self.subcenters = embedding_dim, num_classes, subcenters
        self.margin = margin if margin is not None else Combined()
        self.sample_rate, self.seed, self.tuning = sample_rate, seed, tuning or Tuning()
        self.softmax = softmax
        self.weights = {name: weight for name, (weight, _) in (auxiliary or {}).items()}
        self.auxiliary = nn.ModuleDict({name: loss for name, (_, loss) in (auxiliary or {}).items()})
        self.group_size = group_size
        self.groups = class_groups(group_size, torch.device(device or "cpu").type)
        self._refuse_what_cannot_be()
        self.classes = shard_rows(num_classes, self.groups.index, self.groups.shards)
        rows = range(self.classes.start * subcenters, self.classes.stop * subcenters)
        centers = _initial_centers(rows, embedding_dim, seed)
        if self.margin.bias:
            centers = F.pad(centers, (0, 1))
        self.centers = nn.Parameter(centers.to(device, dtype))
        self.own_cosine: Tensor | None = None
        self.part_names = (*(("softmax",) if softmax else ()), *self.weights)
        self.loss_parts = torch.zeros(len(self.part_names))
        self._update: RowUpdate | None = None
        self._pending: CentersGradient | None = None
        self._step: int | None = None
        self._rounds, self._round = 1, 0
        self._steps_alone = 0
        self._drawn: Tensor | None = None

    def _refuse_what_cannot_be(self) -> None:
        margin = self.margin
        for name, loss in self._auxiliary():
            if loss.touches_centers and self.subcenters > 1:
                raise ConfigError(f"losses.{name}: acts on one center a class; head.subcenters must be 1")
            if self.groups.count > 1:
                raise ConfigError(f"losses.{name}: looks at the embeddings of all ranks; head.group_size must be 0")
            if loss.needs_cosine and not (margin.unit_embeddings and margin.unit_centers):
                raise ConfigError(f"losses.{name}: needs a cosine, which this margin does not take; try norm_softmax")
        if margin.bias and self.subcenters > 1:
            raise ConfigError("head.subcenters: must be 1 where classes have a bias")

    def sharded_tensors(self) -> dict[str, Tensor]:
        """Return the state beside ``centers`` that has a row for each class of this rank, by its key."""
        return {
            f"auxiliary.{name}.{key}": tensor
            for name, loss in self._auxiliary()
            for key, tensor in loss.sharded_tensors().items()
        }

    def replicated_tensors(self) -> dict[str, Tensor]:
        """Return the state that is the same on every rank, by its key."""
        own = {"centers", *self.sharded_tensors()}
        return {key: tensor for key, tensor in self.state_dict().items() if key not in own}

    def _auxiliary(self) -> list[tuple[str, AuxiliaryLoss]]:
        return [(name, loss) for name, loss in self.auxiliary.items() if isinstance(loss, AuxiliaryLoss)]

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"{self.num_classes} × {self.embedding_dim}, classes {self.classes.start}:{self.classes.stop} here"

    def begin_step(self, step: int, labels: Tensor, rounds: int = 1) -> None:
        """Make every ``forward`` until ``end_step`` a round of one optimizer step: one draw, one state of the margin.

        Without it each ``forward`` is a step.

        Args:
            step: the classes drawn are a function of (seed, step, labels).
            labels: this rank's, of all rounds, int64, the same number on every rank.
            rounds: how many there will be, each of as many rows.
        """
        self._step, self._rounds, self._round = step, rounds, 0
        if self.sample_rate < 1 and (rounds > 1 or self.groups.count > 1):  # else its own gathering brings the labels
            self._drawn = self._draw(*collectives.gather_rows(labels), step)

    def end_step(self) -> None:
        """End what ``begin_step`` began: the state of the margin and of auxiliary losses moves on."""
        self.margin.end_step()
        for _, loss in self._auxiliary():
            loss.end_step()
        self._step, self._drawn, self._rounds, self._round = None, None, 1, 0

    def fuse(self, update: RowUpdate) -> None:
        """From now on keep the centers' gradient back, for ``update_centers`` to compute and apply block by block.

        ``centers.grad`` stays None, so the optimizer passes the centers by.

        Args:
            update: ``arcdist.optim.CenterUpdate``, say: what an optimizer does to some rows.
        """
        for name, loss in self._auxiliary():
            if loss.touches_centers:
                raise ConfigError(f"losses.{name}: moves every center, and needs a gradient of full size")
        self._update, self._pending = update, CentersGradient()

    def update_centers(self) -> None:
        """Change the centers by the gradient of all backward passes since the last time; of ``fuse``.

        Memory: a block of it.
        """
        if self._update is None or self._pending is None:
            raise RuntimeError("update_centers: call fuse(update) first; without it the optimizer changes the centers")
        for rows, gradient in self._pending.blocks():
            if self.groups.across is not None:
                collectives.sum_in_place(gradient, self.groups.across)
            self._update.apply(rows, gradient)
        self._update.end()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the global batch, a scalar, the same on every rank.

        After ``backward`` the centers hold their gradient of this loss, and ``embeddings`` world-size times
        theirs: DDP then takes the mean over ranks of the backbone's gradients, which is the gradient of the loss.

        Args:
            embeddings: this rank's rows ``[b, D]``, not normalized, the same ``b`` on every rank. They travel in their
                own dtype and are widened to float32, or to the centers' where that is wider.
            labels: ``[b]`` int64, global class ids in [0, C).

        Errors: DataError for a label outside of [0, C), when labels are on the CPU (on a GPU the look would make
        the host wait; arcdist's loaders look before the batch gets there).
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = _ScaleGradient.apply(embeddings, collectives.world_size())
            if self.groups.count > 1 and self.sample_rate < 1 and self._step is None:
                self._drawn = self._draw(*collectives.gather_rows(labels), self._steps_alone)
                self._steps_alone += 1
            gathered, labels = collectives.gather_rows(rows, labels, group=self.groups.within)
            gathered = gathered.to(torch.promote_types(self.centers.dtype, torch.float32))
            norm = gathered.norm(dim=1)
            unit = F.normalize(gathered)
            loss, cosine = self._softmax(unit if self.margin.unit_embeddings else gathered, norm, labels)
            self.loss_parts = loss.detach()[None] if self.softmax else loss.new_empty(0)
            if self.weights:
                target = self._target(labels)
                centers = self.centers[:, : self.embedding_dim]
                parts = self._auxiliary_parts(
                    Rows(
                        *(gathered, unit, norm, labels, cosine, target, centers, self.classes),
                        *(self.groups.index, self.groups.shards),
                    )
                )
                self.loss_parts = torch.cat([self.loss_parts, parts.detach()])
                loss = loss + parts.sum()
        if self.softmax and self.margin.unit_embeddings and self.margin.unit_centers:
            self.own_cosine = cosine.detach()
        if self._step is None:
            self._round = 0
            if self.training:
                self.end_step()
        return loss

    def _softmax(self, rows: Tensor, norm: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margin softmax, weighted, and the cosines to the own centers, ``[B]``."""
        margin = self.margin
        groups = self.groups
        margin.rows = self._places(len(labels) * groups.count)
        if not self.softmax and not any(loss.needs_cosine for _, loss in self._auxiliary()):
            return rows.new_zeros(()), torch.zeros_like(norm)
        if margin.bias:
            rows = F.pad(rows, (0, 1), value=1.0)
        target, drawn = self._own(labels)
        formula = Formula(margin.scale, None, margin.unit_centers, self.subcenters)
        cosine = norm.detach()
        if margin.needs_target_first:
            with torch.no_grad():
                cosine, _, _ = own_cosines(rows, self.centers, target, drawn, formula)
                cosine = collectives.all_reduce_sum(cosine, groups.within)
        formula = replace(formula, negative=margin.negative(cosine))
        centers = self.centers
        if groups.across is not None and self._pending is None:
            centers = collectives.sum_gradient(centers, groups.across)
        lse, cosine = margin_logsumexp(rows, centers, target, formula, self.tuning, drawn, self._pending)
        lse, cosine = collectives.logsumexp_and_sum(lse, cosine, groups.within)
        # Every rank differentiates by the norms what all of them compute alike, and the gather adds that up.
        norm = _ScaleGradient.apply(norm, 1 / groups.shards)
        if groups.across is not None:  # the loss of a global batch needs no more of another group's rows than these
            together = torch.stack([lse, cosine, norm], 1)
            lse, cosine, norm = collectives.gather_alike(together, groups.across).unbind(1)
        losses = margin.losses(cosine, norm, lse)
        if self.training:
            with torch.no_grad():
                margin.observe(cosine.detach(), norm.detach(), lse.detach())
        return self.softmax * losses.mean(), cosine

    def _places(self, count: int) -> Tensor:
        """Return which rows of the step's global batch this round's are, int64 ``[count]``, on the CPU.

        A rank's rounds follow each other in the global batch.
        """
        places = torch.arange(count).view(collectives.world_size(), -1)
        ranks = torch.arange(len(places))[:, None]
        self._round += 1
        return (places + (ranks * (self._rounds - 1) + self._round - 1) * places.shape[1]).flatten()

    def _auxiliary_parts(self, rows: Rows) -> Tensor:
        """Return each loss, weighted, ``[k]``: its value of all ranks, its gradient of this rank's part."""
        parts = torch.stack([self.weights[name] * loss.part(rows) for name, loss in self._auxiliary()])
        return parts + (collectives.all_reduce_sum(parts.detach()) - parts.detach())

    def _target(self, labels: Tensor) -> Tensor:
        """Return each label's class among this rank's, or −1."""
        target = labels - self.classes.start
        return torch.where((target >= 0) & (target < len(self.classes)), target, -1)

    def _own(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return each label's class among those that take part on this rank, or −1, and their rows (None: all)."""
        target, drawn = self._target(labels), self._drawn
        if self.sample_rate < 1 and drawn is None:
            drawn = self._draw(labels, self._steps_alone if self._step is None else self._step)
            self._steps_alone += self._step is None
        elif drawn is None and self._update is not None:
            self._update.begin(None)
        if drawn is None:
            return target, None
        target = torch.where(target >= 0, torch.searchsorted(drawn, target.clamp_min(0)), -1)
        return target, self._centers_of(drawn)

    def _draw(self, labels: Tensor, step: int) -> Tensor:
        """Return which of this rank's classes take part in a step, rising, counted from its first."""
        drawn = drawn_rows(labels, self.classes, self.sample_rate, self.seed, step)
        if self._update is not None:
            self._update.begin(self._centers_of(drawn))
        return drawn

    def _centers_of(self, classes: Tensor) -> Tensor:
        """Return the rows of ``centers`` that belong to some of this rank's classes."""
        if self.subcenters == 1:
            return classes
        return (classes[:, None] * self.subcenters + torch.arange(self.subcenters, device=classes.device)).flatten()

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
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
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
