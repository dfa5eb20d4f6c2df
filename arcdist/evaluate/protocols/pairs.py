"""Verification of pairs of images from a list: LFW and what has its form, CALFW, CPLFW, SLLFW, AgeDB, CFP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.pair_lists import (
    PairList,
    read_agedb,
    read_cfp,
    read_labeled,
    read_lfw,
    read_sllfw,
    read_two_lines,
)
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.sets import Grid
from arcdist.evaluate.verification import VerificationResult, pair_cosines, require_folds, verify


@dataclass
class _Folds:
    grid: str = field(default="insightface", metadata={"help": "thresholds tried: insightface (0.01 apart) | exact"})

    drawn: ClassVar[bool] = True

    def _plan(self, index: FaceIndex, pairs: PairList, path: str) -> Plan:
        check_grid(self.grid)
        rows = index.rows(pairs.names, path, each=2)
        require_folds(pairs.same, path)
        # Lists of one name exist in several versions.
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else ""

        def score(parts: Mapping[str, Tensor]) -> Outcome:
            embeddings = parts["images"].numpy()
            found = pair_outcome(verify(embeddings, pairs.same, grid=cast(Grid, self.grid)))
            found.cosines[Path(path).stem] = pair_cosines(embeddings, pairs.same)
            if digest:
                found.details["list_sha256"] = digest
                found.notes.append(f"{Path(path).name}: SHA-256 {digest[:16]}…")
            return found

        return Plan({"images": rows}, score)


@dataclass
class _OneList(_Folds):
    pairs: str = ""

    read: ClassVar[Callable[[str], PairList]]

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        return self._plan(index, self.read(named("pairs", self.pairs)), self.pairs)


@dataclass
class PairsTxtConfig(_OneList):
    """Pairs in LFW's form: LFW View 1 and View 2, XQLFW; images are ``NAME/NAME_0001.jpg``."""

    pairs: str = field(default="", metadata={"help": "pairs.txt"})

    read: ClassVar[Callable[[str], PairList]] = staticmethod(read_lfw)


@dataclass
class TwoLinesConfig(_OneList):
    """Pairs in the form of CALFW and CPLFW, two lines each; images are ``NAME_0001.jpg``."""

    pairs: str = field(default="", metadata={"help": "pairs_CALFW.txt or pairs_CPLFW.txt"})

    read: ClassVar[Callable[[str], PairList]] = staticmethod(read_two_lines)


@dataclass
class SimilarConfig(_OneList):
    """SLLFW: LFW's genuine pairs, and impostors who look alike; images are ``NAME/NAME_0001.jpg``."""

    pairs: str = field(default="", metadata={"help": "pair_SLLFW.txt"})

    read: ClassVar[Callable[[str], PairList]] = staticmethod(read_sllfw)


@dataclass
class AgesConfig(_OneList):
    """AgeDB, pairs so many years apart; images are ``STEM.jpg``, within ``03_Protocol_Images``."""

    pairs: str = field(default="", metadata={"help": "04_FINAL_protocol_30_years.mat"})

    read: ClassVar[Callable[[str], PairList]] = staticmethod(read_agedb)


@dataclass
class LabeledConfig(_OneList):
    """Pairs as insightface's packer takes them, ``path1 path2 1``."""

    pairs: str = field(default="", metadata={"help": "pairs_label.txt"})

    read: ClassVar[Callable[[str], PairList]] = staticmethod(read_labeled)


@dataclass
class FrontalConfig(_Folds):
    """CFP, frontal with frontal; images are ``001/frontal/01.jpg``, within ``Data/Images``."""

    lists: str = field(default="", metadata={"help": "CFP's folder Protocol"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        return self._plan(index, read_cfp(named("lists", self.lists), "FF"), self.lists)


@dataclass
class ProfileConfig(_Folds):
    """CFP, frontal with profile; images are ``001/frontal/01.jpg``, within ``Data/Images``."""

    lists: str = field(default="", metadata={"help": "CFP's folder Protocol"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        return self._plan(index, read_cfp(named("lists", self.lists), "FP"), self.lists)


def named(key: str, value: str) -> str:
    """Return a path that has to be given. Raises ConfigError where it is not."""
    if not value:
        raise ConfigError(f"{key}: is not given; arcdist evaluate protocol=NAME --help says what it is")
    return value


def check_grid(grid: str) -> None:
    """Raise ConfigError for a grid of thresholds that is not known."""
    if grid not in ("insightface", "exact"):
        raise ConfigError(f"grid: {grid!r}: must be insightface or exact")


def pair_outcome(result: VerificationResult) -> Outcome:
    """Return a verification's result as a protocol's."""
    tar = {f"TAR@FAR={far:g}": share for far, share in result.tar_at_far.items()}
    return Outcome(
        {"accuracy": result.accuracy, "EER": result.eer, "AUC": result.auc, **tar},
        result.as_dict(),
        [
            f"{result.pairs:,} pairs, {result.genuine:,} of them genuine; thresholds: {result.grid}",
            f"accuracy: ± {100 * result.std:.2f} over the folds, as the field prints it; LFW's standard error "
            f"{100 * result.standard_error:.2f}",
        ],
    )
