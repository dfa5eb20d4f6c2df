"""Pairs drawn from a set of faces: genuine ones, and random impostors (ArcFace paper, Figure 6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.evaluate.scores import unit_rows

Ints = npt.NDArray[np.int64]

PAIRS = 50_000
_AT_ONCE = 8192


def sample_pairs(labels: npt.ArrayLike, count: int = PAIRS, seed: int = 0) -> tuple[Ints, Ints]:
    """Return genuine and impostor pairs, ``[n, 2]`` rows each, drawn evenly of all pairs of their kind, with repeats.

    A kind without a pair gives ``[0, 2]``; where there are fewer genuine pairs than ``count``, each comes once.

    Args:
        labels: ``[N]`` integers, whom each row shows.
        count: of either kind, at most.
    """
    labels = np.asarray(labels)
    random = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, start, images = np.unique(labels[order], return_index=True, return_counts=True)
    possible = images * (images - 1) // 2
    if possible.sum() <= count:
        places = [np.stack(np.triu_indices(n, 1), 1) + first for first, n in zip(start, images) if n > 1]
        genuine = order[np.concatenate(places)] if places else np.empty((0, 2), np.int64)
    else:
        person = random.choice(len(images), count, p=possible / possible.sum())
        first = random.integers(images[person])
        second = (first + random.integers(1, images[person])) % images[person]
        genuine = order[np.stack([start[person] + first, start[person] + second], 1)]
    if len(images) < 2:
        return genuine, np.empty((0, 2), np.int64)
    # By the first one's person, with the share of impostors that it has; the second one is of anybody else.
    others = len(labels) - images
    person = random.choice(len(images), count, p=images * others / (images * others).sum())
    first = start[person] + random.integers(images[person])
    second = random.integers(others[person])
    second += np.where(second >= start[person], images[person], 0)
    return genuine, order[np.stack([first, second], 1)]


def cosines_of(embeddings: Tensor, pairs: Ints) -> npt.NDArray[np.float64]:
    """Return ``[n]``, the cosines of pairs of rows of ``embeddings`` ``[N, D]``, a few thousand at once."""
    found = [np.empty(0)]
    for part in np.split(pairs, range(_AT_ONCE, len(pairs), _AT_ONCE)):
        first, second = (unit_rows(embeddings[torch.from_numpy(side.copy())].double(), "faces") for side in part.T)
        found.append((first * second).sum(1).cpu().numpy())
    return np.concatenate(found)
