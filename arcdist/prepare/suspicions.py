"""What a trained model doubts of a set: images under a wrong label, and identities that are one person."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from arcdist.errors import DataError
from arcdist.prepare.faces import Faces
from arcdist.prepare.robust_centers import CENTER_PASSES, robust_centers
from arcdist.prepare.same_identities import joined
from arcdist.runtime import collectives
from arcdist.runtime.seeds import uniform
from arcdist.runtime.sharding import shard_rows

_FEW_LOOKALIKES = 0.99
_SAMPLED_PAIRS = 20_000
PASSES = 3 * CENTER_PASSES + 2
"""How often `find_suspicions` looks at every embedding."""
_BINS = np.linspace(-1, 1, 51)


@dataclass(frozen=True, eq=False)
class Suspicions:
    """What `find_suspicions` found; cosines are means over an identity's images, see ``RobustCenters``."""

    own: np.ndarray
    """float32 ``[N]``: cosine to the identity's other images, NaN for an only one."""
    other: np.ndarray
    """float32 ``[N]``: cosine to the nearest other identity."""
    other_label: np.ndarray
    """int64 ``[N]``: which that is; of several that are likely one person the smallest label."""
    elsewhere: np.ndarray
    """bool ``[N]``: far from the own identity, and as near to that other one as images of one person are."""
    stranger: np.ndarray
    """bool ``[N]``: more likely a stranger's than the identity's, and near to no other."""
    same: np.ndarray
    """int64 ``[P, 2]``: labels of identities that are likely one person, nearest first."""
    same_cosine: np.ndarray
    """float32 ``[P]``."""
    genuine: float
    """The cosine that nine in ten images of one person reach, judged by the better half."""
    far: float
    """Below it an image is more likely a stranger's."""
    near: float
    """Above it two identities are likely one."""

    @property
    def noise(self) -> np.ndarray:
        """Which images have a label that is likely wrong, bool ``[N]``."""
        return self.elsewhere | self.stranger


def find_suspicions(faces: Faces, labels: np.ndarray, num_classes: int) -> Suspicions:
    """Return what is suspicious, the same on every rank to rounding.

    First identities are compared: two are likely one person where the mean cosine between their images is what it
    is within one identity, and above what any pair of strangers among so many is expected to reach. They are joined.
    Then images are judged, leave one out. One is `elsewhere` if less near to its own identity than nine in ten are, and
    nearer than that to another, and than all but one in a hundred of the nine are to any other. Without these the
    centers are made again, and the others' cosines compared with those of images to identities drawn at random: where
    strangers, in the share that fits, explain at least half of the images with such a cosine (the local false discovery
    rate of Efron, "Large-Scale Simultaneous Hypothesis Testing", 2004), they are `stranger`.

    So all thresholds follow from the set and the model. The labels of a model trained on this very set are to some
    degree learned by heart, which hides their faults.

    Args:
        faces: all embeddings.
        labels: ``[N]`` int64, in [0, C).
        num_classes: ``C``.

    Errors: DataError where no identity has two images, so that nothing can be compared.
    Cost: ``(N + C/2)·C·D`` multiplications shared by the ranks, and `PASSES` passes over the embeddings.
    Memory: five times ``[C, D]`` on each rank.
    """
    mine = torch.from_numpy(labels[faces.rows.start : faces.rows.stop]).to(faces.device)
    centers = robust_centers(faces, mine, num_classes)
    usual, best = _quantiles(centers.own, 0.5, 0.99)
    near = max(2 * usual - best, _most_of_strangers(centers.means, labels, num_classes))
    same, same_cosine = _near_pairs(centers.means, near, faces.block)
    one = joined(same, num_classes)

    mine = torch.from_numpy(one).to(faces.device)[mine]
    centers = robust_centers(faces, mine, num_classes)
    usual, best = _quantiles(centers.own, 0.5, 0.9)
    genuine = 2 * usual - best
    other, other_label = _nearest_other(faces, mine, centers.means)
    (lookalike,) = _quantiles(other[centers.own >= genuine], _FEW_LOOKALIKES)
    elsewhere = (centers.own < genuine) & (other >= max(genuine, lookalike))

    centers = robust_centers(faces, mine, num_classes, elsewhere)
    strange = _to_drawn_identities(faces, mine, one[labels], centers.means)
    own, elsewhere = _everyones(centers.own), _everyones(elsewhere)
    far = _below_which_strangers_are_likelier(own[~np.isnan(own) & ~elsewhere], _everyones(strange))
    return Suspicions(
        own=own,
        other=_everyones(other),
        other_label=_everyones(other_label),
        elsewhere=elsewhere,
        stranger=(own < far) & ~elsewhere,
        same=same,
        same_cosine=same_cosine,
        genuine=genuine,
        far=far,
        near=near,
    )


def _quantiles(own: Tensor, *shares: float) -> list[float]:
    values = _everyones(own)
    values = values[~np.isnan(values)]
    if not len(values):
        raise DataError("no identity has two images, so that none can be compared with its own")
    return [float(value) for value in np.quantile(values, shares)]


def _most_of_strangers(means: Tensor, labels: np.ndarray, num_classes: int) -> float:
    """Return the cosine that of all pairs of identities about one reaches by chance, by a normal distribution."""
    present = np.unique(labels)
    if len(present) < 3:
        return 1.0
    draws = (uniform(0, "pairs of identities", np.arange(2 * _SAMPLED_PAIRS)) * len(present)).astype(int)
    first, second = torch.from_numpy(present[draws].reshape(2, -1)).to(means.device)
    cosine = (means[first] * means[second]).sum(1)[first != second]
    pairs = len(present) * (len(present) - 1) / 2
    return float(cosine.mean() + cosine.std() * NormalDist().inv_cdf(1 - 1 / (pairs + 1)))


def _blocks(means: Tensor, block: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(means), block):
        yield start, means[start : start + block]


def _near_pairs(means: Tensor, near: float, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of identities whose cosine is over ``near``, nearest first, and their cosines."""
    mine = shard_rows(len(means), collectives.rank(), collectives.world_size())
    pairs, cosines = [means.new_empty(0, 2, dtype=torch.int64)], [means.new_empty(0)]
    for start, rows in _blocks(means[mine.start : mine.stop], block):
        for beyond, others in _blocks(means[mine.start + start :], block):
            cosine = (rows @ others.T).triu(1 - beyond)  # each pair once
            found = (cosine > max(near, 0.0)).nonzero()
            pairs.append(found + found.new_tensor([0, beyond]) + mine.start + start)
            cosines.append(cosine[found[:, 0], found[:, 1]])
    everyones, cosine = _everyones(torch.cat(pairs)), _everyones(torch.cat(cosines))
    order = np.argsort(-cosine, kind="stable")
    return everyones[order], cosine[order]


def _nearest_other(faces: Faces, labels: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine to the nearest identity that is not the own one, and its label, of this rank's rows."""
    nearest = torch.full((len(labels),), -torch.inf, device=faces.device)
    label = torch.zeros_like(labels)
    for part, unit in faces.blocks():
        for first, others in _blocks(means, faces.block):
            cosine = unit @ others.T
            own = labels[part] - first
            inside = ((own >= 0) & (own < len(others))).nonzero()[:, 0]
            cosine[inside, own[inside]] = -torch.inf
            value, at = cosine.max(1)
            label[part] = torch.where(value > nearest[part], at + first, label[part])
            nearest[part] = torch.maximum(value, nearest[part])
    return nearest, label


def _to_drawn_identities(faces: Faces, labels: Tensor, everyones_labels: np.ndarray, means: Tensor) -> Tensor:
    """Return the cosine of this rank's images to the identities of images drawn at random, where these are others."""
    rows = np.arange(faces.rows.start, faces.rows.stop)
    drawn = (uniform(0, "strangers", rows) * len(everyones_labels)).astype(int)
    drawn_labels = torch.from_numpy(everyones_labels[drawn]).to(faces.device)
    cosine = torch.empty(len(rows), device=faces.device)
    for part, unit in faces.blocks():
        cosine[part] = (unit * means[drawn_labels[part]]).sum(1)
    return cosine[drawn_labels != labels]


def _below_which_strangers_are_likelier(own: np.ndarray, strange: np.ndarray) -> float:
    """Return the cosine up to which strangers explain at least half of the images; −1 where that is nowhere."""
    if not len(own) or not len(strange):
        return -1.0
    middle = np.median(strange)
    share = min(1.0, 2 * float((own < middle).mean()))  # nearly all that is there below the strangers' median
    expected = share * np.histogram(strange, _BINS)[0] / len(strange)
    found = np.histogram(own, _BINS)[0] / len(own)
    far = -1.0
    for upper, strangers, images in zip(_BINS[1:], expected, found):
        if images and upper > middle and strangers < images / 2:
            break
        far = float(upper) if images else far
    return far


def _everyones(values: Tensor) -> np.ndarray:
    return collectives.gather_uneven_rows(values).cpu().numpy()
