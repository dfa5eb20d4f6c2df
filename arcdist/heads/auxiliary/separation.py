"""Losses that push the head's class centers apart: inter-loss, hyperspherical energy."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.heads.auxiliary.geometry import angle, at_least_eps
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss, Rows
from arcdist.runtime import collectives

_BLOCK = 8192  # centers scored at once


@dataclass
class InterLossConfig(AuxiliaryConfig):
    """Inter-loss (ArcFace paper, equation 6): large angles between centers."""

    key = "losses.inter"
    touches_embeddings = False

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "InterLoss":
        """Return the loss."""
        self.validate()
        return InterLoss(num_classes)


class _Separation(AuxiliaryLoss):
    """``1/(B·(C − 1)) · Σ_i Σ_{j ≠ y_i} pair(cos(W_{y_i}, W_j))``: the batch's classes against all centers.

    Memory: this rank's gradient, ``[S, D]``; ``B · block`` cosines. Never ``[C, C]``.
    Communication: an all-reduce of the batch's centers, ``[B, D]``, and one of their gradient.
    Cost: of three products ``[B, D] × [D, S]``, as much as the margin softmax itself.
    """

    touches_centers = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @abstractmethod
    def pair(self, cosine: Tensor) -> Tensor:
        """Return what a pair of centers adds, elementwise."""

    def part(self, rows: Rows) -> Tensor:
        """Return the part of this rank's centers, as the W_j."""
        total: Tensor = _SumOverCenters.apply(rows.centers, rows.target, self.pair, _BLOCK)
        return total / (len(rows.target) * max(1, self.num_classes - 1))


class InterLoss(_Separation):
    """``−1/(π·B·(C − 1)) · Σ_i Σ_{j ≠ y_i} arccos(W_{y_i}·W_j)`` of unit centers (arXiv:1801.07698, equation 6)."""

    def pair(self, cosine: Tensor) -> Tensor:
        """Return minus the angle, in half turns."""
        return -angle(cosine) / math.pi


@dataclass
class HypersphericalEnergyConfig(AuxiliaryConfig):
    """Hyperspherical energy (SphereFace+; Liu et al. 2018): centers that repel each other."""

    key = "losses.energy"
    touches_embeddings = False

    power: float = field(default=2.0, metadata={"help": "s of 1 / distance^s; 0: −log(distance)"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.check_number("power", at_least=0)

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "HypersphericalEnergy":
        """Return the loss."""
        self.validate()
        return HypersphericalEnergy(num_classes, self.power)


class HypersphericalEnergy(_Separation):
    """``1/(B·(C − 1)) · Σ_i Σ_{j ≠ y_i} f_s(‖W_{y_i} − W_j‖)`` of unit centers; f_s(z) = z^(−s), or −log z where s = 0.

    SphereFace+'s mini-batch form (arXiv:1805.09298, sections 3.6 and 5.2). The authors' code has instead the inverse of
    the mean squared distance, which pushes near neighbors no more than far ones; this is the paper's. Squared
    distances below the dtype's epsilon count as that.
    """

    def __init__(self, num_classes: int, power: float = 2.0) -> None:
        super().__init__(num_classes)
        self.power = power

    def pair(self, cosine: Tensor) -> Tensor:
        """Return f_s of the distance."""
        squared = at_least_eps(2 - 2 * cosine)
        return squared.pow(-self.power / 2) if self.power else -squared.log() / 2


class _SumOverCenters(torch.autograd.Function):
    """Σ_i Σ_{j ≠ y_i} pair(cos(W_{y_i}, W_j)), j of this rank only; ``centers``' gradient is that of all ranks' sums.

    A gradient is linear in that of the sum, so it is computed on the way forward, block by block: no block is scored
    twice, and the backward pass needs no communication. What comes back must be the same on every rank.
    """

    @staticmethod
    def forward(ctx: Any, centers: Tensor, target: Tensor, pair: Callable[[Tensor], Tensor], block: int) -> Tensor:
        wide = torch.promote_types(centers.dtype, torch.float32)
        owned = target >= 0
        row = target.clamp_min(0)
        own = centers.new_zeros(len(target), centers.shape[1], dtype=wide)
        if len(centers):
            own = torch.where(owned[:, None], centers[row].to(wide), 0)
        own = collectives.all_reduce_sum(own)
        own_gradient, gradient = torch.zeros_like(own), torch.empty_like(centers)
        total = own.new_zeros(())
        needed = ctx.needs_input_grad[0]
        for start in range(0, len(centers), block):
            others = centers[start : start + block].detach().to(wide)
            itself = target[:, None] == torch.arange(start, start + len(others), device=target.device)
            with torch.set_grad_enabled(needed):
                first, second = own.detach().requires_grad_(needed), others.requires_grad_(needed)
                cosine = (F.normalize(first) @ F.normalize(second).T).masked_fill(itself, 0)
                value = pair(cosine).masked_fill(itself, 0).sum()
            total += value.detach()
            if needed:
                of_first, of_second = torch.autograd.grad(value, (first, second))
                own_gradient += of_first
                gradient[start : start + block] = of_second
        if needed:
            own_gradient = collectives.all_reduce_sum(own_gradient)
            if len(centers):
                gradient.index_add_(0, row, torch.where(owned[:, None], own_gradient, 0).to(gradient.dtype))
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (of_centers,) = ctx.saved_tensors
        return gradient * of_centers, None, None, None
