"""Videos: YouTube Faces, whose pairs are verified, and iQIYI-VID, whose clips are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.face_index import FaceIndex, Ints
from arcdist.evaluate.iqiyi import MOST_ANSWERS, mean_average_precision, nearest_clips, read_clips
from arcdist.evaluate.lists import integer, read_fields
from arcdist.evaluate.protocols.pairs import check_grid, named, pair_outcome
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.sets import Grid
from arcdist.evaluate.templates import pool_templates
from arcdist.evaluate.ytf import read_splits, verify_videos


@dataclass
class YouTubeFacesConfig:
    """YouTube Faces; images are frames, ``PERSON/VIDEO/….jpg``."""

    pairs: str = field(default="", metadata={"help": "splits.txt"})
    grid: str = field(default="insightface", metadata={"help": "thresholds tried: insightface (0.01 apart) | exact"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        check_grid(self.grid)
        pairs = read_splits(named("pairs", self.pairs))
        rows, videos = index.under([*pairs.first, *pairs.second], self.pairs)

        def score(parts: Mapping[str, Tensor]) -> Outcome:
            outcome = pair_outcome(verify_videos(parts["frames"], videos, pairs, grid=cast(Grid, self.grid)))
            return Outcome(
                outcome.figures,
                outcome.details | {"frames": len(rows), "videos": len(set(videos))},
                [
                    *outcome.notes,
                    f"{len(set(videos)):,} videos, each the mean of its frames at length 1 ({len(rows):,})",
                ],
            )

        return Plan({"frames": rows}, score)


@dataclass
class ClipsConfig:
    """iQIYI-VID; images are frames, ``CLIP/….jpg``, the clip's name without ``.mp4``."""

    train: str = field(default="", metadata={"help": "clips whose person is known: CLIP.mp4 ID a line; ID 0 is nobody"})
    truth: str = field(default="", metadata={"help": "who is in which of the other clips: ID CLIP.mp4 … a line"})
    normalizer: str = field(
        default="all", metadata={"help": "precision is over all clips of a person | findable: at most a hundred"}
    )

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        if self.normalizer not in ("all", "findable"):
            raise ConfigError(f"normalizer: {self.normalizer!r}: must be all or findable")
        listed = read_clips(named("truth", self.truth))
        truth = {person: [_stem(clip) for clip in clips] for person, clips in listed.items()}
        known = _known_clips(named("train", self.train))
        unknown = sorted(set(truth) - set(known.values()))
        if unknown:
            raise DataError(f"{self.truth}: person {unknown[0]} is in no clip of {self.train}; {len(unknown)} are not")
        sought = sorted({clip for clips in truth.values() for clip in clips})
        given_away = sorted(known.keys() & set(sought))
        if given_away:
            raise DataError(f"{self.truth}: {given_away[0]} is in {self.train} too; {len(given_away)} clips are")
        index.under(sought, self.truth)
        train_rows, train_clips = index.under([clip for clip, person in known.items() if person], self.train)
        others = sorted({str(PurePosixPath(name).parent) for name in index.names} - known.keys())
        rows, clips = index.under(others, self.truth)
        names, clip_of = np.unique(clips, return_inverse=True)
        person_of = np.array([known[clip] for clip in train_clips])

        def score(parts: Mapping[str, Tensor]) -> Outcome:
            ids, people = _pooled(parts["train"], person_of, np.unique(train_clips, return_inverse=True)[1])
            gallery = _pooled(parts["clips"], clip_of)[1]
            answers = nearest_clips(people, ids.tolist(), gallery, names.tolist())
            normalizer = cast(Literal["all", "findable"], self.normalizer)
            found = mean_average_precision(answers, truth, normalizer=normalizer)
            counts = {"people": len(truth), "clips": len(names), "frames": len(rows) + len(train_rows)}
            return Outcome(
                {f"MAP@{MOST_ANSWERS}": found},
                {"mean_average_precision": found, "normalizer": self.normalizer, **counts},
                [
                    f"{len(truth):,} people looked for in {len(names):,} clips; normalizer: {self.normalizer}",
                    "a clip is the mean of its frames at length 1, a person the sum of their clips of the train list",
                ],
            )

        return Plan({"train": train_rows, "clips": rows}, score)


def _known_clips(path: str) -> dict[str, int]:
    clips: dict[str, int] = {}
    for number, (clip, person) in read_fields(path, "clip id"):
        if clips.setdefault(_stem(clip), own := integer(person, path, number, "id")) != own:
            raise DataError(f"{path}:{number}: {clip} is of person {own}, and above of {clips[_stem(clip)]}")
    return clips


def _pooled(frames: Tensor, template: Ints, medium: Ints | None = None) -> tuple[Ints, Tensor]:
    pooled = pool_templates(frames, template, medium, norm_weighting=False)
    return pooled.ids, pooled.embeddings


def _stem(clip: str) -> str:
    return Path(clip).with_suffix("").as_posix() if clip.endswith(".mp4") else clip
