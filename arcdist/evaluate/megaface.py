"""MegaFace challenge 1: probes of a few people among a million distractors, identification and verification.

Source: Kemelmacher-Shlizerman et al. (CVPR 2016); cleaning: Deng et al., ArcFace (insightface ``src/megaface``).
Figures of raw and of cleaned lists differ by 17 points: a result says which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.exact_rates import Rates, impostor_keeper, rates
from arcdist.evaluate.identification import Ties
from arcdist.evaluate.scores import NearestRows, matrix_blocks, unit_rows

Cleaning = Literal["none", "drop", "insightface", "facex_zoo"]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MegaFaceResult:
    """What the challenge reports, and what it stands on."""

    rank: dict[int, float]
    """By k, the share of ordered genuine pairs (probe, mate) where the mate is among the first k."""
    verification: Rates
    """Genuine: pairs of probes of one person; impostor: every probe with every distractor."""
    probes: int
    people: int
    distractors: int
    cleaning: str
    noisy_probes: int
    noisy_distractors: int

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        return asdict(self) | {
            "rank": {str(k): share for k, share in self.rank.items()},
            "verification": self.verification.as_dict(),
        }


def score_megaface(
    probes: Tensor,
    people: Sequence[str],
    distractors: Tensor,
    *,
    noisy_probes: Bools | None = None,
    noisy_distractors: Bools | None = None,
    cleaning: Cleaning = "none",
    ranks: Sequence[int] = (1, 10),
    fars: Sequence[float] = (1e-6,),
    ties: Ties = "miss",
) -> MegaFaceResult:
    """Return the challenge's two figures, on every rank.

    Identification: of a person's M probes each in turn joins the distractors, and each of the other M − 1 looks for it;
    the mean is over all ordered pairs. Other people's probes are no distractors.

    Args:
        probes: ``[P, D]``, rows of any length; their device does the work.
        people: ``[P]``, whose each probe is.
        distractors: ``[N, D]``, rows of any length, memory-mapped where they are large.
        noisy_probes, noisy_distractors: ``[P]``, ``[N]``, what the noise lists name (``megaface_files.noisy_images``).
        cleaning: what is done with them. ``none``: nothing, the raw figures. ``drop``: both are left out.
            ``insightface``: a noisy probe becomes the sum of its person's clean ones (without the script's ± 0.001 of
            noise), a noisy distractor is far from all, and still counts as an impostor. ``facex_zoo``: a noisy probe
            becomes the center of its person's clean ones, a noisy distractor has cosine 0 with all.
        ties: whether a mate that scores like a distractor counts as found; FaceX-Zoo says "hit". Equal images tie to
            rounding only, since mates and distractors are products of different shapes.

    Raises DataError for embeddings that are not finite or have no direction, lists of other lengths, and people whose
    probes are all noisy or all alone.
    Time: ``2·P·N·D/W`` operations. Memory: ``P²`` scores, ``P·max(ranks)`` scores, the held ``fars·P·N``, blocks.
    """
    if cleaning not in ("none", "drop", "insightface", "facex_zoo"):
        raise ConfigError(f"cleaning: {cleaning!r}: must be 'none', 'drop', 'insightface' or 'facex_zoo'")
    names, person = np.unique(np.asarray(people), return_inverse=True)
    noisy_probes = _mask("noisy_probes", noisy_probes, len(probes))
    noisy_distractors = _mask("noisy_distractors", noisy_distractors, len(distractors))
    if len(person) != len(probes):
        raise DataError(f"people: {len(person)} for {len(probes)} probes")
    if cleaning == "drop":
        probes, person = probes[torch.from_numpy(~noisy_probes).to(probes.device)], person[~noisy_probes]
    elif cleaning != "none":
        probes = _recentered(probes, person, noisy_probes, names)
    left_out = noisy_distractors if cleaning != "none" else np.zeros_like(noisy_distractors)
    far_away = 0 if cleaning == "drop" else int(left_out.sum())  # distractors that stay, with one score for all probes
    kept = torch.from_numpy(np.flatnonzero(~left_out)) if left_out.any() else None

    unit = unit_rows(probes, "probes")
    scores = unit @ unit.T
    of_person = torch.from_numpy(person).to(scores.device)
    same = (of_person[:, None] == of_person).fill_diagonal_(False)
    if not same.any() or left_out.all():
        raise DataError(
            f"{len(probes)} probes of {len(names)} people, {len(distractors)} distractors: a person with two probes is "
            "needed, and a distractor"
        )

    impostor_pairs = len(probes) * (int((~left_out).sum()) + far_away)
    nearest = NearestRows(len(probes), max(ranks), unit)
    impostor = impostor_keeper(fars, impostor_pairs, probes)
    for block in matrix_blocks(probes, distractors, kept):
        nearest.add(block)
        impostor.add(block.scores)
    rivals, highest = nearest.nearest()[0], impostor.highest()
    if far_away:
        score = 0.0 if cleaning == "facex_zoo" else -torch.inf
        rivals = torch.cat([rivals, torch.full_like(rivals[:, :far_away], score)], 1).sort(1, descending=True).values
        highest = torch.cat([highest, highest.new_full((min(len(probes) * far_away, impostor.count),), score)])

    found = {}
    for k in ranks:
        rival = rivals[:, k - 1, None]
        found[k] = int((same & ((scores >= rival) if ties == "hit" else (scores > rival))).sum()) / int(same.sum())
    return MegaFaceResult(
        found,
        rates(scores[same.triu()].cpu().numpy(), highest.cpu().numpy(), fars, of_impostors=impostor_pairs),
        len(probes),
        len(np.unique(person)),
        impostor_pairs // len(probes),
        cleaning,
        int(noisy_probes.sum()),
        int(noisy_distractors.sum()),
    )


def _recentered(probes: Tensor, person: npt.NDArray[np.int64], noisy: Bools, names: npt.NDArray[Any]) -> Tensor:
    """Return the probes with each noisy one replaced by the sum of its person's clean unit embeddings."""
    unit = unit_rows(probes, "probes").clone()
    for row in np.flatnonzero(noisy):
        clean = (person == person[row]) & ~noisy
        if not clean.any():
            raise DataError(
                f"probe {row}: noisy, and so are all of {names[person[row]]}'s; cleaning=drop leaves them out"
            )
        unit[row] = unit[torch.from_numpy(clean).to(unit.device)].sum(0)
    return unit


def _mask(name: str, mask: Bools | None, count: int) -> Bools:
    mask = np.zeros(count, dtype=bool) if mask is None else np.asarray(mask)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise DataError(f"{name}: {mask.dtype} of shape {mask.shape}: {count} booleans are needed")
    return mask
