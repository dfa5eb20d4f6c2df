"""Losses over all pairs of a batch's embeddings: contrastive, marginal."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.heads.auxiliary.anchors import first_of_class, other_rows, same_class, sum_over_anchors
from arcdist.heads.auxiliary.geometry import at_least_eps, squared_distances
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss, Rows


@dataclass
class ContrastiveLossConfig(AuxiliaryConfig):
    """Contrastive loss (DeepID2, Sun et al. 2014): genuine pairs near, impostor pairs farther than a margin."""

    key = "losses.contrastive"

    margin: float = field(default=1.0, metadata={"help": "m, the distance from which an impostor pair is left alone"})
    normalized: bool = field(default=True, metadata={"help": "embeddings at length 1; false: as they are (the paper)"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.check_number("margin", above=0)

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "ContrastiveLoss":
        """Return the loss."""
        self.validate()
        return ContrastiveLoss(self.margin, self.normalized)


class ContrastiveLoss(AuxiliaryLoss):
    """``½ d²`` of a genuine pair, ``½ max(0, m − d)²`` of an impostor pair (arXiv:1406.4773, equation 2).

    The paper draws pairs; we take all of the batch's, the mean over its genuine pairs plus the mean over its impostor
    pairs: in one mean over all, the few genuine ones of a large batch would vanish. Where the batch has no pair of a
    kind, that mean is 0.
    """

    def __init__(self, margin: float = 1.0, normalized: bool = True) -> None:
        super().__init__()
        self.margin, self.normalized = margin, normalized

    def part(self, rows: Rows) -> Tensor:
        """Return the part of the pairs whose first member is this rank's."""
        embeddings = rows.unit if self.normalized else rows.raw
        _, size = first_of_class(rows.labels)
        genuine_pairs = (size - 1).sum()
        impostor_pairs = (len(size) - size).sum()

        def of_anchors(anchors: range) -> Tensor:
            squared = squared_distances(embeddings[anchors.start : anchors.stop], embeddings)
            same = same_class(rows.labels, anchors)
            genuine = squared.masked_fill(~(same & other_rows(rows.labels, anchors)), 0)
            impostor = (self.margin - at_least_eps(squared).sqrt()).relu().square().masked_fill(same, 0)
            return genuine.sum() / genuine_pairs.clamp_min(1) + impostor.sum() / impostor_pairs.clamp_min(1)

        return sum_over_anchors(of_anchors, rows) / 2


@dataclass
class MarginalLossConfig(AuxiliaryConfig):
    """Marginal loss (Deng et al. 2017): genuine pairs below one threshold, impostor pairs above it, by a margin."""

    key = "losses.marginal"

    threshold: float = field(default=1.2, metadata={"help": "θ, of the squared distance, in [0, 4]"})
    margin: float = field(default=0.3, metadata={"help": "ξ, how far from the threshold a pair must be"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.check_number("threshold", above=0)
        self.check_number("margin", at_least=0)

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "MarginalLoss":
        """Return the loss."""
        self.validate()
        return MarginalLoss(self.threshold, self.margin)


class MarginalLoss(AuxiliaryLoss):
    """``1/(B² − B) · Σ_{i ≠ j} max(0, ξ − y_ij·(θ − ‖x_i − x_j‖²))`` of unit embeddings; y_ij is 1 or −1.

    Source: Deng, Zhou, Zafeiriou: Marginal Loss for Deep Face Recognition, CVPR Workshops 2017.
    """

    def __init__(self, threshold: float = 1.2, margin: float = 0.3) -> None:
        super().__init__()
        self.threshold, self.margin = threshold, margin

    def part(self, rows: Rows) -> Tensor:
        """Return the part of the pairs whose first member is this rank's."""
        count = len(rows.labels)

        def of_anchors(anchors: range) -> Tensor:
            below = self.threshold - squared_distances(rows.unit[anchors.start : anchors.stop], rows.unit)
            below = torch.where(same_class(rows.labels, anchors), below, -below)
            return F.relu(self.margin - below).masked_fill(~other_rows(rows.labels, anchors), 0).sum()

        return sum_over_anchors(of_anchors, rows) / max(1, count * (count - 1))
