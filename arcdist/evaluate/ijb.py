"""IJB-B and IJB-C: verification of template pairs (1:1) and search of two galleries (1:N).

Both take templates (``templates.pool_templates``) and lists (``ijb_lists``). Source: Whitelam et al., IJB-B (CVPRW
2017); Maze et al., IJB-C (ICB 2018); where insightface's scripts deviate their meaning is there by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.exact_rates import Rates, rates, tar_at_nearest_far
from arcdist.evaluate.identification import people_blocks, rank_rates, search_people, tpir_at_fpir
from arcdist.evaluate.ijb_lists import People, TemplatePairs
from arcdist.evaluate.scores import TopScores
from arcdist.evaluate.templates import Templates

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIRS = (1e-3, 1e-2, 1e-1)
RANKS = (1, 5, 10)

_SCORES_AT_ONCE = 2**24  # 64 MiB of float32

Meaning = Literal["official", "ijb_evals", "concatenated"]


@dataclass(frozen=True)
class TemplateVerification:
    """What a list of template pairs scores."""

    rates: Rates
    nearest: dict[float, tuple[float, float]]
    """By FAR, TAR and FAR of the ROC's nearest vertex: what insightface prints, optimistic."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        return self.rates.as_dict() | {"tar_at_nearest_far": {str(far): pair[0] for far, pair in self.nearest.items()}}


@dataclass(frozen=True)
class Identification:
    """What the search of the galleries finds; rates are means over galleries where the meaning says so."""

    meaning: str
    rank: dict[int, float]
    tpir_at_fpir: dict[float, float]
    thresholds: list[dict[float, float]]
    """For each gallery by FPIR; a single one for ``concatenated``."""
    mated: list[int]
    """For each gallery, how many probes have a mate there."""
    probes: int

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        by_text = {"rank", "tpir_at_fpir"}
        result = {
            name: {str(key): number for key, number in value.items()} if name in by_text else value
            for name, value in asdict(self).items()
        }
        return result | {"thresholds": [{str(key): t for key, t in each.items()} for each in self.thresholds]}


def pair_scores(templates: Templates, pairs: TemplatePairs) -> npt.NDArray[np.floating]:
    """Return the cosine of each pair of templates, ``[P]``, in the templates' dtype.

    A list pairs each of its first templates with thousands of others, so products of matrices, of which entries are
    picked, are several times faster than a product a pair. Time: at most ``2·T²·D`` operations. Memory: the scores,
    their order, and 16 million scores at once.

    Raises DataError for a template that has no images.
    """
    first, second = (templates.rows(ids, "template pairs") for ids in (pairs.first, pairs.second))
    order = np.argsort(first, kind="stable")
    height = max(1, _SCORES_AT_ONCE // len(templates.ids))
    starts = np.arange(0, len(templates.ids), height)
    parts = np.split(order, np.searchsorted(first[order], starts[1:]))
    embeddings = templates.embeddings.cpu()
    scores = embeddings.new_empty(len(first)).numpy()
    for start, listed in zip(starts.tolist(), parts):
        if len(listed):
            block = (embeddings[start : start + height] @ embeddings.T).numpy()
            scores[listed] = block[first[listed] - start, second[listed]]
    return scores


def verify_templates(templates: Templates, pairs: TemplatePairs, fars: Sequence[float] = FARS) -> TemplateVerification:
    """Return TAR at each FAR over a list of template pairs: IJB's 1:1.

    Raises DataError for a template without images, and a list without genuine or without impostor pairs.
    """
    scores = pair_scores(templates, pairs)
    genuine, impostor = scores[pairs.same], scores[~pairs.same]
    return TemplateVerification(rates(genuine, impostor, fars), tar_at_nearest_far(genuine, impostor, fars))


def identify_templates(
    templates: Templates,
    galleries: Sequence[People],
    probes: People,
    *,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
    meaning: Meaning = "official",
) -> Identification:
    """Return what a search of the galleries finds for each probe: IJB's 1:N.

    Args:
        galleries: two of them; they share no person and no template, and each probe's person is in one of them.
        probes: whose mates are looked for.
        meaning: ``official``: each gallery is searched by itself, a probe whose person is in the other one has no mate;
            TPIR asks for rank 1; TPIR and the closed set's ranks are means of the two galleries.
            ``ijb_evals``: the same, but insightface's threshold (see ``tpir_at_fpir``) and ranks over the searches of
            both galleries together.
            ``concatenated``: insightface's ``ijb_1n.py``: one gallery of both, so that no search is open; what it
            calls FAR is false pairs of all probes and gallery templates over probes, and no rank is asked for.

    Raises DataError for lists that break these rules and templates without images.
    """
    if meaning not in ("official", "ijb_evals", "concatenated"):
        raise ConfigError(f"meaning: {meaning!r}: must be 'official', 'ijb_evals' or 'concatenated'")
    _check(galleries, probes)
    if meaning == "concatenated":
        return _concatenated(templates, galleries, probes, fpirs, ranks)
    probe_embeddings = templates.of(probes.template, "probes")
    threshold = "exact" if meaning == "official" else "ijb_evals"
    searches = [
        search_people(
            probe_embeddings, probes.subject, templates.of(gallery.template, f"gallery {number}"), gallery.subject
        )
        for number, gallery in enumerate(galleries, 1)
    ]
    open_set = [tpir_at_fpir(each, fpirs, threshold=threshold) for each in searches]
    closed_set = [rank_rates(each, ranks) for each in searches]
    mated = [rate.genuine for rate in open_set]
    weights = mated if meaning == "ijb_evals" else [1] * len(mated)
    return Identification(
        meaning,
        {k: float(np.average([each[k] for each in closed_set], weights=weights)) for k in ranks},
        {fpir: float(np.mean([each.tar_at_far[fpir] for each in open_set])) for fpir in fpirs},
        [each.thresholds for each in open_set],
        mated,
        len(probes.template),
    )


def _concatenated(
    templates: Templates, galleries: Sequence[People], probes: People, fpirs: Sequence[float], ranks: Sequence[int]
) -> Identification:
    both = [np.concatenate([getattr(each, name) for each in galleries]) for name in ("template", "subject")]
    sides = (templates.of(probes.template, "probes"), probes.subject, templates.of(both[0], "galleries"), both[1])
    searches = search_people(*sides)
    places = {fpir: math.ceil(len(probes.template) * fpir) for fpir in fpirs}
    impostor = TopScores(max(places.values()), templates.embeddings)
    for _, scores, mates in people_blocks(*sides):
        impostor.add(scores.masked_fill(mates, -torch.inf))
    falling = impostor.highest().cpu().numpy()
    thresholds = {fpir: float(falling[place - 1]) for fpir, place in places.items()}
    recall = {fpir: float(np.mean(searches.mate > score)) for fpir, score in thresholds.items()}
    return Identification(
        "concatenated",
        rank_rates(searches, ranks),
        recall,
        [thresholds],
        [int(searches.mated.sum())],
        len(probes.template),
    )


def _check(galleries: Sequence[People], probes: People) -> None:
    template = np.concatenate([gallery.template for gallery in galleries])
    subject = np.concatenate([gallery.subject for gallery in galleries])
    for ids, what in ((subject, "person"), (template, "template")):
        known, count = np.unique(ids, return_counts=True)
        if (count > 1).any():
            raise DataError(f"{what} {known[count > 1][0]} is in the galleries {count.max()} times; each is there once")
    missing = ~np.isin(probes.subject, subject)
    if missing.any():
        raise DataError(
            f"{missing.sum()} of {len(missing)} probes are of people in no gallery; the first is template "
            f"{probes.template[missing][0]} of person {probes.subject[missing][0]}"
        )
