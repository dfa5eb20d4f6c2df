"""Triplet loss over the gathered batch: by angle or by squared distance, over all, hard or semi-hard triplets."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.heads.auxiliary.anchors import other_rows, same_class, sum_over_anchors
from arcdist.heads.auxiliary.geometry import angle, squared_distances
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss, Rows
from arcdist.runtime import collectives

METRICS = ("angle", "squared_distance")
MINING = ("all", "hard", "semi_hard")


@dataclass
class TripletLossConfig(AuxiliaryConfig):
    """Triplet loss (FaceNet; by angle as in the ArcFace paper): nearer to each genuine row than to impostor rows."""

    key = "losses.triplet"

    margin: float = field(default=0.35, metadata={"help": "by which an impostor is farther; radians for metric angle"})
    metric: str = field(default="angle", metadata={"help": "angle (ArcFace paper) | squared_distance (FaceNet)"})
    mining: str = field(default="semi_hard", metadata={"help": "all | hard | semi_hard"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.check_number("margin", above=0)
        self.check_choice("metric", METRICS)
        self.check_choice("mining", MINING)

    def build(self, embedding_dim: int, num_classes: int, device: torch.device) -> "TripletLoss":
        """Return the loss."""
        self.validate()
        return TripletLoss(self.margin, self.metric, self.mining)


class TripletLoss(AuxiliaryLoss):
    """The mean of ``d(a, p) + m − d(a, n)`` over the mined triplets in which it is above 0.

    ``d`` is ``arccos(x_a·x_p)`` as in the ArcFace paper (arXiv:1801.07698, section 2.3), or ``‖x_a − x_p‖²`` of unit
    embeddings as in FaceNet (arXiv:1503.03832, equation 3). Mined are

    - ``all``: every triplet of the batch;
    - ``hard``: for each anchor its farthest genuine and its nearest impostor row (arXiv:1703.07737, equation 5);
    - ``semi_hard``: for each anchor and genuine row the nearest impostor row that is farther than it (FaceNet,
      equation 4).

    FaceNet sums and the others take means, of all mined or of the violating ones (arXiv:1703.07737, section 2);
    triplets that are done with would only dilute the mean. Without a violation the loss is 0.

    Time: all triplets as well are ``O(B² log B)``. Communication: an all-reduce of one number.
    """

    def __init__(self, margin: float = 0.35, metric: str = "angle", mining: str = "semi_hard") -> None:
        super().__init__()
        self.margin, self.metric, self.mining = margin, metric, mining

    def part(self, rows: Rows) -> Tensor:
        """Return the part of this rank's anchors."""
        total, count = sum_over_anchors(lambda anchors: self._violations(rows, anchors), rows)
        return total / collectives.all_reduce_sum(count).clamp_min(1)

    def _violations(self, rows: Rows, anchors: range) -> Tensor:
        """Return the sum of the violations of some anchors, and how many they are, ``[2]``."""
        mine = rows.unit[anchors.start : anchors.stop]
        distance = angle(mine @ rows.unit.T) if self.metric == "angle" else squared_distances(mine, rows.unit)
        same = same_class(rows.labels, anchors)
        genuine = same & other_rows(rows.labels, anchors)
        impostor = distance.masked_fill(same, math.inf)
        if self.mining == "all":
            return _all_triplets(distance + self.margin, genuine, impostor)
        if self.mining == "hard":
            farthest = distance.masked_fill(~genuine, -math.inf).amax(1)
            violation = (farthest + self.margin - impostor.amin(1)).relu()
        else:
            impostor = impostor.sort(1).values
            # The anchor's own column holds an infinity, so there is a place, but for a distance that is no number.
            farther = torch.searchsorted(impostor.detach(), distance.detach(), right=True)
            farther = farther.clamp_max(impostor.shape[1] - 1)
            violation = (distance + self.margin - impostor.gather(1, farther)).relu().masked_fill(~genuine, 0)
        return torch.stack([violation.sum(), (violation > 0).sum().to(violation.dtype)])


def _all_triplets(reach: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
    """Return Σ max(0, reach(a, p) − d(a, n)) over all triplets, and how many are above 0, ``[2]``.

    In the order of the impostors' distances those within reach come first: k of them, whose distances sum to a prefix.
    """
    impostor = impostor.sort(1).values
    within = torch.searchsorted(impostor.detach(), reach.detach())
    prefix = torch.cat([impostor.new_zeros(len(impostor), 1), impostor.cumsum(1)], 1).gather(1, within)
    violation = (within * reach - prefix).masked_fill(~genuine, 0)
    return torch.stack([violation.sum(), within.masked_fill(~genuine, 0).sum().to(violation.dtype)])
