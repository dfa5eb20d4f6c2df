"""Identification: who of a gallery it is, if anybody.

A probe that has a mate in the gallery is mated. Where a mate and another person's image score alike the mate loses,
as everywhere in ``evaluate`` a tie counts against the verifier; ``ties="hit"`` is for scripts that count it as found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.exact_rates import Rates, rates
from arcdist.evaluate.scores import NearestRows, matrix_blocks, unit_rows
from arcdist.runtime.collectives import gather_uneven_rows, rank, world_size

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Ties = Literal["miss", "hit"]
Threshold = Literal["exact", "ijb_evals"]

_SCORES_AT_ONCE = 2**24  # 64 MiB of float32


def search(probes: Tensor, gallery: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each probe's ``count`` nearest rows of the gallery, on every rank: cosines, falling, and row numbers.

    Both are ``[P, min(count, G)]``. Which of equally near rows comes first is not said.

    Args:
        probes: ``[P, D]``, the same on every rank, rows of any length; their device does the work.
        gallery: ``[G, D]``, the same on every rank, rows of any length and any float dtype; may be memory-mapped
            (``torch.from_numpy(np.load(path, mmap_mode="c"))``).

    Raises DataError for rows that are not finite or have no direction, and ConfigError for a count below 1.
    Time: ``2·P·G·D/W`` operations. Memory: a unit copy of the probes, the answer, a few blocks.
    Communication: one gather of the answers.
    """
    if count < 1:
        raise ConfigError(f"count: {count}: must be at least 1")
    nearest = NearestRows(len(probes), min(count, len(gallery)), unit_rows(probes[:1], "probes"))
    for block in matrix_blocks(probes, gallery):
        nearest.add(block)
    return nearest.nearest()


class Searches(NamedTuple):
    """What each of P probes met in one gallery."""

    mate: Floats
    """``[P]``, the score of the best mate; −∞ where the probe has none."""
    other: Floats
    """``[P]``, the highest score of another person; −∞ where there is none."""
    rank: Ints
    """``[P]``, the place of the best mate, from 1; 0 where the probe has none."""

    @property
    def mated(self) -> npt.NDArray[np.bool_]:
        """Return ``[P]``, whether the probe has a mate."""
        return self.rank > 0


class PeopleBlock(NamedTuple):
    """All scores of a few probes."""

    rows: slice
    scores: Tensor
    mates: Tensor
    """Bool, of the shape of ``scores``: whether probe and row of the gallery are of one person."""


def people_blocks(
    probes: Tensor, probe_people: npt.ArrayLike, gallery: Tensor, gallery_people: npt.ArrayLike
) -> Iterator[PeopleBlock]:
    """Yield this rank's probes, a few at a time, with their scores over the whole gallery; ranks hold contiguous parts.

    Args:
        probes: ``[P, D]``, rows of any length.
        probe_people: ``[P]`` integers.
        gallery: ``[G, D]``, rows of any length, on the same device.
        gallery_people: ``[G]`` integers.

    Memory: unit copies of both, and 16 million scores at once.
    """
    people = [torch.from_numpy(_people(*each)) for each in ((probe_people, probes), (gallery_people, gallery))]
    probe_people, gallery_people = (part.to(probes.device) for part in people)
    probes, gallery = unit_rows(probes, "probes"), unit_rows(gallery, "gallery")
    height = max(1, _SCORES_AT_ONCE // len(gallery))
    starts = np.array_split(np.arange(0, len(probes), height), world_size())[rank()].tolist()
    for start in starts:
        rows = slice(start, min(start + height, len(probes)))
        yield PeopleBlock(rows, probes[rows] @ gallery.T, probe_people[rows, None] == gallery_people)


def search_people(
    probes: Tensor,
    probe_people: npt.ArrayLike,
    gallery: Tensor,
    gallery_people: npt.ArrayLike,
    *,
    ties: Ties = "miss",
) -> Searches:
    """Return what each probe met in the gallery, on every rank.

    Takes, costs and refuses what ``people_blocks`` does.
    """
    if ties not in ("miss", "hit"):
        raise ConfigError(f"ties: {ties!r}: must be 'miss' or 'hit'")
    found = [probes.new_empty(0, 3, dtype=torch.float64)]
    for _, scores, mates in people_blocks(probes, probe_people, gallery, gallery_people):
        mate = scores.masked_fill(~mates, -torch.inf).amax(1)
        others = scores.masked_fill(mates, -torch.inf)
        ahead = others > mate[:, None] if ties == "hit" else others >= mate[:, None]
        place = torch.where(mates.any(1), 1 + ahead.sum(1), 0)
        found.append(torch.stack([mate.double(), others.amax(1).double(), place.double()], 1))
    mate, other, place = gather_uneven_rows(torch.cat(found)).T.cpu().numpy()
    return Searches(mate, other, place.astype(np.int64))


def rank_rates(searches: Searches, ranks: Sequence[int]) -> dict[int, float]:
    """Return, by k, the share of mated probes whose mate is among the first k: the closed set's CMC curve.

    Raises DataError where no probe is mated.
    """
    places = searches.rank[searches.mated]
    if not len(places):
        raise DataError(
            "no probe has a mate in the gallery, so there is nothing to find; do lists and ids belong together?"
        )
    return {k: float(np.mean(places <= k)) for k in ranks}


def tpir_at_fpir(
    searches: Searches, fpirs: Sequence[float], *, most_rank: int | None = 1, threshold: Threshold = "exact"
) -> Rates:
    """Return TPIR at each FPIR: the open set's measure, IJB-C Test 4.

    FPIR is the share of probes without a mate whose best candidate reaches the threshold; TPIR is the share of mated
    probes whose mate reaches it. ``genuine`` of the result counts mated probes, ``impostor`` the others.

    Args:
        fpirs: each in [0, 1].
        most_rank: the mate must also be among the first so many; None asks for no rank.
        threshold: ``exact``, the largest TPIR of any threshold that keeps FPIR, as everywhere in ``evaluate``;
            ``ijb_evals``, insightface's: mates above the sorted best scores at index ``max(int(n·FPIR) − 1, 0)``, which
            allows one false positive less (``ijb_evals.py:427``).

    Raises DataError where no probe is mated, or all are.
    """
    mated = searches.mated
    if mated.all() or not mated.any():
        raise DataError(f"{mated.sum()} of {len(mated)} probes have a mate in the gallery; an open set has both kinds")
    mate = np.where((searches.rank <= most_rank) if most_rank else True, searches.mate, -np.inf)[mated]
    best_of_others = searches.other[~mated]
    if threshold == "exact":
        return rates(mate, best_of_others, fpirs)
    if threshold != "ijb_evals":
        raise ConfigError(f"threshold: {threshold!r}: must be 'exact' or 'ijb_evals'")
    places = {fpir: max(int(len(best_of_others) * fpir) - 1, 0) for fpir in fpirs}
    falling = np.sort(best_of_others)[::-1]
    thresholds = {fpir: float(falling[place]) for fpir, place in places.items()}
    tpir = {fpir: float(np.mean(mate > score)) for fpir, score in thresholds.items()}
    return Rates(tpir, thresholds, places, len(mate), len(best_of_others))


def _people(people: npt.ArrayLike, embeddings: Tensor) -> Ints:
    people = np.asarray(people)
    if people.shape != embeddings.shape[:1] or people.dtype.kind not in "iu" or not len(people):
        raise DataError(
            f"people: {people.dtype} of shape {people.shape}; embeddings {list(embeddings.shape)} need as many "
            "integers, at least one"
        )
    return people.astype(np.int64)
