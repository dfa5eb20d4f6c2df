"""TinyFace: faces of about 20 px, looked for among 150,000 others; a probe has one mate or several.

Source: Cheng et al., Low-Resolution Face Recognition (ACCV 2018), and the scorer that goes with it. It takes Euclidean
distances of features as they are; here they are of unit length, as in every later paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import DataError
from arcdist.evaluate.identification import people_blocks
from arcdist.evaluate.matlab import read_mat
from arcdist.runtime.collectives import gather_uneven_rows

RANKS = (1, 5, 10, 20, 50)
DISTRACTOR = -100  # the scorer's id of nobody

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TinyFaceResult:
    """What the benchmark reports."""

    rank: dict[int, float]
    """By k, the share of probes with any of their mates among the first k."""
    mean_average_precision: float
    """The scorer's: precision over recall, by trapezoids."""
    probes: int
    gallery: int
    distractors: int

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        return asdict(self) | {"rank": {str(k): share for k, share in self.rank.items()}}


def read_tinyface(path: str | Path) -> tuple[list[str], Ints]:
    """Return names and people of ``gallery_match_img_ID_pairs.mat`` or ``probe_img_ID_pairs.mat``.

    The number that a name begins with is not the person's. Raises DataError for a file without exactly one ``…_set``
    and one ``…_ids`` of one length, and for a name that is there twice.
    """
    variables = read_mat(path)
    sets = [value for name, value in variables.items() if name.endswith("_set")]
    ids = [value for name, value in variables.items() if name.endswith("_ids")]
    if len(sets) != 1 or len(ids) != 1 or not isinstance(sets[0], list) or not isinstance(ids[0], np.ndarray):
        raise DataError(
            f"{path}: holds {', '.join(variables) or 'nothing'}; one list of names (…_set) and one of ids (…_ids)"
        )
    names = [str(name) for name in sets[0]]
    people = ids[0].astype(np.int64).ravel()  # uint16 in the file, which −100 does not fit in
    if len(names) != len(people):
        raise DataError(f"{path}: {len(names)} names and {len(people)} ids")
    if len(set(names)) != len(names):
        raise DataError(f"{path}: {len(names) - len(set(names))} names are there twice; is it the original?")
    return names, people


def score_tinyface(
    probes: Tensor,
    probe_people: npt.ArrayLike,
    gallery: Tensor,
    gallery_people: npt.ArrayLike,
    distractors: Tensor,
    ranks: Sequence[int] = RANKS,
) -> TinyFaceResult:
    """Return the benchmark's figures, on every rank. A non-mate that scores like a mate comes before it.

    Args:
        probes, gallery, distractors: ``[P, D]``, ``[M, D]``, ``[N, D]``, rows of any length.
        probe_people, gallery_people: ``[P]``, ``[M]`` integers, not negative.

    Raises DataError for a probe without a mate, embeddings that are not finite or have no direction, and lists of other
    lengths. Time: ``2·P·(M + N)·D/W`` operations. Memory: copies of the embeddings, 16 million scores.
    """
    gallery_people = np.concatenate([np.asarray(gallery_people), np.full(len(distractors), DISTRACTOR)])
    alone = ~np.isin(probe_people, gallery_people[gallery_people >= 0])
    if alone.any():
        raise DataError(
            f"{alone.sum()} probes have no mate in the gallery; the first is row {np.flatnonzero(alone)[0]}"
        )
    found = [probes.new_empty(0, 2, dtype=torch.float64)]
    for _, scores, mates in people_blocks(probes, probe_people, torch.cat([gallery, distractors]), gallery_people):
        for row, is_mate in zip(scores, mates):
            mate = row[is_mate].sort(descending=True).values
            ahead = (row.masked_fill(is_mate, -torch.inf) >= mate[:, None]).sum(1)
            place = ahead + torch.arange(1, len(mate) + 1, device=ahead.device)
            found.append(torch.stack([place[0].double(), _average_precision(place.double())])[None])
    first, precision = gather_uneven_rows(torch.cat(found)).T.cpu().numpy()
    shares = {k: float(np.mean(first <= k)) for k in ranks}
    return TinyFaceResult(shares, float(precision.mean()), len(probes), len(gallery), len(distractors))


def _average_precision(place: Tensor) -> Tensor:
    """Return the area under precision over recall, for the places of all mates, rising from 1, ``[m]``."""
    found = torch.arange(len(place), dtype=place.dtype, device=place.device)
    before = torch.where(place > 1, found / (place - 1).clamp_min(1), 1.0)
    return ((before + (found + 1) / place) / 2).mean()
