"""Verification of groups of people, and how far apart they lie: Racial Faces in the Wild, and pairs of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.group_errors import errors_at_one_threshold
from arcdist.evaluate.lists import read_fields, refuse_repeats
from arcdist.evaluate.pair_lists import PairList, read_labeled, read_lfw
from arcdist.evaluate.protocols.pairs import check_grid, named
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.rfw import GROUPS, group_spread, read_rfw_pairs
from arcdist.evaluate.sets import Grid
from arcdist.evaluate.verification import FOLDS, pair_cosines, verify

Bools = npt.NDArray[np.bool_]

FORMS: dict[str, Callable[[str], PairList]] = {"lfw": read_lfw, "labeled": read_labeled}


@dataclass
class _Gaps:
    grid: str = field(default="insightface", metadata={"help": "thresholds tried: insightface (0.01 apart) | exact"})
    far: float = field(
        default=1e-2, metadata={"help": "share of all groups' impostors that one threshold for all may accept"}
    )

    drawn: ClassVar[bool] = True

    def _check(self) -> None:
        check_grid(self.grid)
        if not 0 <= self.far <= 1:
            raise ConfigError(f"far: {self.far}: must be in [0, 1]")

    def _score(self, embeddings: Mapping[str, Tensor], same: Mapping[str, Bools]) -> Outcome:
        parts = {group: embeddings[group].numpy() for group in same}
        results = {group: verify(parts[group], same[group], grid=cast(Grid, self.grid)) for group in same}
        cosines = {group: pair_cosines(parts[group], same[group]) for group in same}
        spread = group_spread({group: result.accuracy for group, result in results.items()})
        shared = errors_at_one_threshold(cosines, self.far)
        ratio = spread.error_ratio if math.isfinite(spread.error_ratio) else None
        errors = {
            "errors at own\nthresholds, %": {g: 100 - 100 * each for g, each in spread.accuracy.items()},
            "false accepts at one\nthreshold, %": {g: 100 * each.false_accepts for g, each in shared.groups.items()},
            "false rejects at one\nthreshold, %": {g: 100 * each.false_rejects for g, each in shared.groups.items()},
        }
        return Outcome(
            {**spread.accuracy, "average": spread.mean, "STD": spread.std},
            {
                "spread": asdict(spread) | {"error_ratio": ratio},
                "groups": {group: result.as_dict() for group, result in results.items()},
                "one_threshold": shared.as_dict(),
            },
            [
                f"each group by its own thresholds; STD with n, {100 * spread.std_unbiased:.2f} with n − 1",
                f"SER, the largest error over the smallest: {spread.error_ratio:.2f}",
                f"at one threshold for all, of FAR {self.far:g}, groups are {100 * shared.gap('false_accepts'):.2f} "
                f"points of false accepts apart, and {100 * shared.gap('false_rejects'):.2f} of false rejects",
            ],
            cosines,
            errors,
        )


@dataclass
class GroupsConfig(_Gaps):
    """RFW; images are ``African/m.0abc/m.0abc_0001.jpg``, within ``test/data``."""

    lists: str = field(default="", metadata={"help": "RFW's folder test/txts, with African/African_pairs.txt …"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        self._check()
        parts, labels = {}, {}
        for group in GROUPS:
            path = Path(named("lists", self.lists), group, f"{group}_pairs.txt")
            pairs, labels[group] = read_rfw_pairs(path)
            parts[group] = index.rows([f"{group}/{name}" for pair in pairs for name in pair], path, each=2)
        return Plan(parts, lambda embeddings: self._score(embeddings, labels))


@dataclass
class OwnGroupsConfig(_Gaps):
    """Pairs of any set whose images belong to groups; a pair of two groups is counted and not scored."""

    pairs: str = field(default="", metadata={"help": "the list of pairs"})
    form: str = field(default="lfw", metadata={"help": "of the list: lfw (pairs.txt) | labeled (path1 path2 1)"})
    groups: str = field(default="", metadata={"help": "file of lines IMAGE,GROUP; instead of level"})
    level: int = field(default=0, metadata={"help": "which folder of an image's path names its group, from 1"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        self._check()
        if self.form not in FORMS:
            raise ConfigError(f"form: {self.form!r}: must be one of {', '.join(FORMS)}")
        if self.level < 0 or bool(self.groups) == bool(self.level):
            raise ConfigError("groups, level: one of them says which group an image is of: groups=FILE.csv or level=1")
        pairs = FORMS[self.form](named("pairs", self.pairs))
        group_of = _read_groups(self.groups) if self.groups else {}
        group = np.array([group_of.get(name) or self._folder(name) for name in pairs.names]).reshape(-1, 2)
        within = group[:, 0] == group[:, 1]
        rows = index.rows(pairs.names, self.pairs, each=2).reshape(-1, 2)
        parts, same = {}, {}
        for name in np.unique(group[within]).tolist():
            own = within & (group[:, 0] == name)
            genuine, count = int(pairs.same[own].sum()), int(own.sum())
            if count < FOLDS or genuine in (0, count):
                raise DataError(
                    f"{self.pairs}: group {name}: {genuine} genuine and {count - genuine} impostor pairs; at least "
                    f"{FOLDS} pairs of both kinds are needed"
                )
            parts[name], same[name] = rows[own].ravel(), pairs.same[own]
        if len(parts) < 2:
            raise DataError(f"{self.pairs}: pairs within {len(parts)} groups; at least two groups are needed")

        def score(embeddings: Mapping[str, Tensor]) -> Outcome:
            found = self._score(embeddings, same)
            found.notes.append(f"{int((~within).sum()):,} of {len(within):,} pairs are of two groups, and not scored")
            return found

        return Plan(parts, score)

    def _folder(self, name: str) -> str:
        """Return the folder that names an image's group."""
        folders = PurePosixPath(name).parts[:-1]
        if self.groups:
            raise DataError(f"{self.groups}: has no group for {name}, which {self.pairs} names")
        if len(folders) < self.level:
            raise DataError(f"level: {self.level}: {name} of {self.pairs} lies in {len(folders)} folders")
        return folders[self.level - 1]


def _read_groups(path: str) -> dict[str, str]:
    """Return by image its group. Raises DataError for a line of another form, and an image that is there twice."""
    entries = [fields for _, fields in read_fields(path, "image group", separator=",")]
    first = 1
    if entries and entries[0] == ["image", "group"]:  # a heading
        entries, first = entries[1:], 2
    refuse_repeats([image for image, _ in entries], path, "image", first)
    for number, (image, group) in enumerate(entries, first):
        if not image or not group:
            raise DataError(f"{path}:{number}: {image!r},{group!r}: an image and its group are needed")
    return dict(entries)
