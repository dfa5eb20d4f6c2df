"""What the head is held against, written plainly: heads that hold all logits, and torch's own chunked one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

_INITIAL_STD = 0.01


class PartialFCV2(nn.Module):
    """The algorithm of arcface_torch's ``PartialFC_V2`` with its ArcFace margin, pass for pass.

    Its costs are kept as they are: a unit copy of the centers; arccos and cos of every logit, without gradient, so
    that the margin's is straight-through; a softmax in place; a full one-hot matrix in the backward pass; at
    ``sample_rate < 1`` an indexed copy whose gradient is again of all centers. No row's loss exceeds −log 1e-30.
    Its collectives are not: here one all-gather stands for its two, and a reduce-scatter for a reduce a rank.

    Args:
        embedding_dim: ``D``.
        num_classes: ``C``, of all ranks.
        sample_rate: share of the centers in a step, the batch's own always among them.
        autocast: whether normalization and product run under bf16 autocast, as its ``fp16=True``.
        scale: multiplies every logit.
        m2: is added to the target's angle, in radians.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        sample_rate: float = 1.0,
        autocast: bool = False,
        scale: float = 64.0,
        m2: float = 0.5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.sample_rate, self.autocast, self.scale, self.m2 = sample_rate, autocast, scale, m2
        self.classes = shard_rows(num_classes, collectives.rank(), collectives.world_size())
        self.centers = _normal_centers(len(self.classes), embedding_dim, device, dtype)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the global batch's mean loss, a scalar, of this rank's embeddings ``[b, D]`` and labels ``[b]``."""
        embeddings, labels = collectives.gather_rows(embeddings, labels)
        row = torch.where((labels >= self.classes.start) & (labels < self.classes.stop))[0]
        target = labels[row] - self.classes.start
        centers = self.centers
        if self.sample_rate < 1:
            drawn = self._drawn(target)
            centers, target = centers[drawn], torch.searchsorted(drawn, target)
        with torch.autocast(embeddings.device.type, torch.bfloat16, enabled=self.autocast):
            cosine = F.linear(F.normalize(embeddings), F.normalize(centers))
        if self.autocast:
            cosine = cosine.float()
        cosine = cosine.clamp(-1, 1)
        with torch.no_grad():
            cosine.arccos_()
            cosine[row, target] += self.m2
            cosine.cos_()
        loss: Tensor = _CrossEntropyInPlace.apply(cosine * self.scale, row, target)
        return loss

    @torch.no_grad()
    def _drawn(self, target: Tensor) -> Tensor:
        """Return the sorted rows of the centers in this step."""
        positive = target.unique()
        num_sample = int(self.sample_rate * len(self.centers))
        if len(positive) > num_sample:
            return positive
        priority = torch.rand(len(self.centers), device=target.device)
        priority[positive] = 2.0
        return priority.topk(num_sample).indices.sort().values


class _CrossEntropyInPlace(torch.autograd.Function):
    """The softmax of PartialFC_V2: turns the logits into probabilities where they are.

    ``row`` are the batch's rows whose class is on this rank, ``target`` that class's column.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
        logits.sub_(collectives.all_reduce_max(logits.max(1, keepdim=True).values))
        logits.exp_()
        logits.div_(collectives.all_reduce_sum(logits.sum(1, keepdim=True)))
        ctx.save_for_backward(logits, row, target)
        probability = logits.new_zeros(len(logits))
        probability[row] = logits[row].gather(1, target[:, None])[:, 0]
        return -collectives.all_reduce_sum(probability).clamp_min_(1e-30).log_().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        probability, row, target = ctx.saved_tensors
        one_hot = probability.new_zeros(len(row), probability.shape[1])
        one_hot.scatter_(1, target[:, None], 1)
        probability[row] -= one_hot
        probability.div_(len(probability))
        return probability * gradient.item(), None, None


class Materialized(nn.Module):
    """The same loss as a careful user of torch writes it: all logits, the margin on the target alone, autograd.

    In float64 it is what gradients are compared with. ``m2 = 0`` is the softmax without a margin.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        scale: float = 64.0,
        m2: float = 0.5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.scale, self.m2 = scale, m2
        self.centers = _normal_centers(num_classes, embedding_dim, device, dtype)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of embeddings ``[B, D]`` with labels ``[B]`` int64."""
        logits = F.linear(self.scale * F.normalize(embeddings), F.normalize(self.centers))
        if self.m2:
            row = torch.arange(len(labels), device=labels.device)
            with torch.no_grad():
                cosine = (logits[row, labels] / self.scale).clamp(-1, 1)
                logits[row, labels] = self.scale * (cosine.arccos() + self.m2).cos()
        return F.cross_entropy(logits, labels)


class LinearCrossEntropy(nn.Module):
    """The softmax without a margin by torch's own ``linear_cross_entropy``, chunked over rows of the batch.

    Args:
        embedding_dim: ``D``.
        num_classes: ``C``.
        chunk: rows of the batch in a chunk; None leaves it to torch.
        scale: multiplies every logit.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        chunk: int | None = None,
        scale: float = 64.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.options = nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
        self.centers = _normal_centers(num_classes, embedding_dim, device, dtype)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of embeddings ``[B, D]`` with labels ``[B]`` int64."""
        unit, centers = self.scale * F.normalize(embeddings), F.normalize(self.centers)
        return F.linear_cross_entropy(unit, centers, labels, options=self.options)


def _normal_centers(
    num_classes: int, embedding_dim: int, device: torch.device | str | None, dtype: torch.dtype
) -> nn.Parameter:
    return nn.Parameter(torch.empty(num_classes, embedding_dim, device=device, dtype=dtype).normal_(0, _INITIAL_STD))
