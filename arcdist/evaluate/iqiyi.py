"""iQIYI-VID: for each person the hundred clips that show them, MAP@100.

Source: Liu et al., iQIYI-VID (2018). Lists are read to their description: none was at hand. The normalizer is that of a
contestant's scorer, the only one public: all of a person's clips, also where they are more than a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.identification import search
from arcdist.evaluate.lists import integer, read_lines

MOST_ANSWERS = 100


def read_clips(path: str | Path) -> dict[int, list[str]]:
    """Return each person's clips, of the ground truth or of a submission: ``id clip1 clip2 …`` a line, best first.

    Raises DataError for an id that is no integer or is there twice, and an empty file.
    """
    clips: dict[int, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        person = integer(fields[0], path, number, "the person's id")
        if person in clips:
            raise DataError(f"{path}:{number}: person {person} is there already")
        clips[person] = fields[1:]
    if not clips:
        raise DataError(f"{path}: holds no person")
    return clips


def nearest_clips(
    people: Tensor, ids: Sequence[int], clips: Tensor, names: Sequence[str], most: int = MOST_ANSWERS
) -> dict[int, list[str]]:
    """Return each person's nearest clips, nearest first, by cosine.

    Args:
        people: ``[P, D]``, a template each, of ``ids``.
        clips: ``[N, D]``, an embedding each, of ``names``.

    Time, memory: those of ``search``.
    """
    if len(ids) != len(people) or len(names) != len(clips):
        raise DataError(f"{len(ids)} ids for {len(people)} people, {len(names)} names for {len(clips)} clips")
    rows = search(people, clips, most)[1]
    return {person: [names[row] for row in nearest] for person, nearest in zip(ids, rows.tolist())}


def mean_average_precision(
    answers: Mapping[int, Sequence[str]],
    truth: Mapping[int, Sequence[str]],
    *,
    most: int = MOST_ANSWERS,
    normalizer: Literal["all", "findable"] = "all",
) -> float:
    """Return MAP@most: over the people of the truth, the mean of ``Σ_j precision@j · right(j)`` over a number of clips.

    Of equal answers the first counts and the others are dropped; a person without an answer scores 0.

    Args:
        normalizer: over how many clips: ``all`` that show the person, or those that can be found, ``min(all, most)``.

    Raises DataError for a truth that is empty or holds a person without a clip.
    """
    if normalizer not in ("all", "findable"):
        raise ConfigError(f"normalizer: {normalizer!r}: must be 'all' or 'findable'")
    empty = [person for person, clips in truth.items() if not clips]
    if empty or not truth:
        raise DataError(f"truth: {len(truth)} people, without a clip: {empty[:5]}; each needs one")
    precisions = []
    for person, clips in truth.items():
        wanted = set(clips)
        given = list(dict.fromkeys(answers.get(person, ())))[:most]
        right = torch.tensor([clip in wanted for clip in given], dtype=torch.float64)
        precision = right.cumsum(0) / torch.arange(1, len(given) + 1, dtype=torch.float64)
        clips_counted = len(wanted) if normalizer == "all" else min(len(wanted), most)
        precisions.append(float((precision * right).sum()) / clips_counted)
    return sum(precisions) / len(precisions)
