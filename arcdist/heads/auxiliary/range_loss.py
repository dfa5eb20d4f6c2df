"""Range loss: the largest distances within the batch's classes, the smallest between them."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.heads.auxiliary.anchors import first_of_class, mine, rows_after, same_class, sum_over_anchors
from arcdist.heads.auxiliary.geometry import at_least_eps, squared_distances
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss, Rows


@dataclass
class RangeLossConfig(AuxiliaryConfig):
    """Range loss (Zhang et al. 2017): the batch's widest classes narrower, its nearest two farther apart."""

    key = "losses.range"

    largest: int = field(default=2, metadata={"help": "k, the largest distances within a class that count"})
    intra: float = field(default=1.0, metadata={"help": "α, of the distances within classes"})
    inter: float = field(default=1.0, metadata={"help": "β, of the distance between classes"})
    margin: float = field(default=1.0, metadata={"help": "m, squared distance from which two classes are left alone"})
    normalized: bool = field(default=True, metadata={"help": "embeddings at length 1; false: as they are (the paper)"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.check_number("largest", at_least=1)
        self.check_number("intra", at_least=0)
        self.check_number("inter", at_least=0)
        self.check_number("margin", above=0)

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "RangeLoss":
        """Return the loss."""
        self.validate()
        return RangeLoss(self.largest, self.intra, self.inter, self.margin, self.normalized)


class RangeLoss(AuxiliaryLoss):
    """``α · mean_classes(k / Σ_{j ≤ k} 1/D_j) + β · max(0, m − ‖mean_Q − mean_R‖²)`` (arXiv:1611.08976).

    D_j are the k largest squared distances between two rows of a class, Q and R the two classes of the batch whose
    mean embeddings are nearest. A class with fewer than k pairs gives what it has, one with a single row nothing. The
    paper sums over classes; we take the mean over those that have pairs, so that weights outlast a change of the batch.

    Communication: two all-gathers, of 2·k and of 2 numbers a row.
    """

    def __init__(
        self, largest: int = 2, intra: float = 1.0, inter: float = 1.0, margin: float = 1.0, normalized: bool = True
    ) -> None:
        super().__init__()
        self.largest, self.intra, self.inter = largest, intra, inter
        self.margin, self.normalized = margin, normalized

    def part(self, rows: Rows) -> Tensor:
        """Return the part of the classes whose first row is this rank's; Q and R count where the earlier one does."""
        embeddings = rows.unit if self.normalized else rows.raw
        return self.intra * self._within(embeddings, rows) + self.inter * self._between(embeddings, rows)

    def _within(self, embeddings: Tensor, rows: Rows) -> Tensor:
        def farthest(anchors: range) -> tuple[Tensor, Tensor]:
            squared = squared_distances(embeddings[anchors.start : anchors.stop], embeddings)
            pair = same_class(rows.labels, anchors) & rows_after(rows.labels, anchors)
            values, indices = squared.masked_fill(~pair, -math.inf).topk(min(self.largest, len(embeddings)))
            return values, indices

        # A class's k largest are among the k largest of each of its rows.
        values, partner = mine(farthest, rows)
        first, size = first_of_class(rows.labels)

        def of_classes(leaders: range) -> Tensor:
            index = torch.arange(leaders.start, leaders.stop, device=first.device)
            members = first == index[:, None]
            candidates = values.masked_fill(~members[:, :, None], -math.inf).flatten(1)
            chosen, place = candidates.topk(min(self.largest, candidates.shape[1]))
            one, other = place // values.shape[1], partner.flatten()[place]
            squared = (embeddings[one] - embeddings[other]).square().sum(2)
            exists = chosen > -math.inf
            inverses = torch.where(exists, 1 / at_least_eps(squared), 0).sum(1)
            return (exists.sum(1) / at_least_eps(inverses)).sum()

        leads = first == torch.arange(len(first), device=first.device)
        return sum_over_anchors(of_classes, rows) / (leads & (size > 1)).sum().clamp_min(1)

    def _between(self, embeddings: Tensor, rows: Rows) -> Tensor:
        first, size = first_of_class(rows.labels)
        means = torch.zeros_like(embeddings).index_add(0, first, embeddings) / size[:, None]
        leads = first == torch.arange(len(first), device=first.device)

        def nearest(anchors: range) -> tuple[Tensor, Tensor]:
            squared = squared_distances(means[anchors.start : anchors.stop], means)
            pair = leads[anchors.start : anchors.stop, None] & leads & rows_after(rows.labels, anchors)
            values, indices = squared.masked_fill(~pair, math.inf).min(1)
            return values, indices

        values, partner = mine(nearest, rows)
        one = values.argmin()
        squared = (means[one] - means[partner[one]]).square().sum()
        acts = (one >= rows.anchors.start) & (one < rows.anchors.stop) & values[one].isfinite()
        return torch.where(acts, F.relu(self.margin - squared), 0)
