"""Lists of pairs of images for verification, in the forms in which benchmarks give them out.

Seen in the original: LFW, XQLFW, CFP. CALFW, CPLFW and insightface's ``pairs_label.txt`` are read to their description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from arcdist.data.pairs_txt import read_pairs
from arcdist.errors import DataError
from arcdist.evaluate.lists import integer, read_fields
from arcdist.evaluate.verification import FOLDS

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PairList:
    """P pairs of images by name, fold after fold, ten of them."""

    names: list[str]
    """``[2P]``, two consecutive ones a pair."""
    same: Bools
    """``[P]``, true where both show one person."""


def read_lfw(path: str | Path) -> PairList:
    """Return the pairs of LFW's ``pairs.txt``, and of all lists in its form (XQLFW, View 1), as ``NAME/NAME_0001.jpg``.

    A list with all genuine pairs first, as View 1 has them, is dealt to the folds evenly.
    """
    pairs = read_pairs(Path(path))
    names = [f"{name}/{name}_{number:04d}.jpg" for one, other, _ in pairs for name, number in (one, other)]
    return _dealt(names, [genuine for _, _, genuine in pairs])


def read_labeled(path: str | Path) -> PairList:
    """Return the pairs of insightface's ``pairs_label.txt``: ``path1 path2 1`` for one person, 0 for two.

    Raises DataError for a line of another form.
    """
    names: list[str] = []
    same: list[bool] = []
    for number, (first, second, label) in read_fields(path, "image image label"):
        if label not in ("0", "1"):
            raise DataError(f"{path}:{number}: label {label!r}: must be 1 (one person) or 0")
        names += [first, second]
        same.append(label == "1")
    return _dealt(names, same)


def read_two_lines(path: str | Path) -> PairList:
    """Return the pairs of ``pairs_CALFW.txt`` and ``pairs_CPLFW.txt``: two lines a pair, ``NAME_0001.jpg TOKEN``.

    The token of both lines is 0 for two people; for one person it is the fold, or 1. Genuine pairs come first and
    impostor pairs have no fold, so tenths of both are a fold, in the order of the list.

    Raises DataError for an odd number of lines, and two lines of one pair with different tokens.
    """
    lines = [(number, *fields) for number, fields in read_fields(path, "image token")]
    if len(lines) % 2:
        raise DataError(f"{path}: {len(lines)} lines; a pair has two")
    names: list[str] = []
    same: list[bool] = []
    for (number, first, token), (_, second, other) in zip(lines[::2], lines[1::2]):
        if token != other:
            raise DataError(f"{path}:{number + 1}: token {other}, but {token} on the line before; a pair has one")
        names += [first, second]
        same.append(integer(token, path, number, "token") > 0)
    return _dealt(names, same)


def read_cfp(protocol: str | Path, kind: str) -> PairList:
    """Return the pairs of CFP's folder ``Protocol``, FF or FP, as ``001/frontal/01.jpg``, within ``Data/Images``.

    In FP the first number of a pair is of the list of frontal images, the second of that of profiles.

    Raises DataError for lists that are not numbered from 1, a pair of a number that no list has, and a label that the
    people deny.
    """
    folder = Path(protocol)
    sides = [_numbered(folder / f"Pair_list_{side}.txt") for side in kind]
    names: list[str] = []
    same: list[bool] = []
    for fold in range(1, FOLDS + 1):
        for label in ("same", "diff"):
            path = folder / "Split" / kind / f"{fold:02d}" / f"{label}.txt"
            for line, fields in read_fields(path, "number number", separator=","):
                pair = [_entry(side, text, path, line) for side, text in zip(sides, fields)]
                people = {name.split("/")[0] for name in pair}
                if (len(people) == 1) != (label == "same"):
                    raise DataError(f"{path}:{line}: {pair[0]} and {pair[1]} in a list of the {label}")
                names += pair
                same.append(label == "same")
    return PairList(names, np.array(same))


def _numbered(path: Path) -> list[str]:
    names = []
    for line, (number, name) in read_fields(path, "number path"):
        if integer(number, path, line, "number") != line:
            raise DataError(f"{path}:{line}: number {number}; lines are numbered from 1")
        names.append("/".join(PurePosixPath(name).parts[-3:]))
    return names


def _entry(names: Sequence[str], text: str, path: Path, line: int) -> str:
    number = integer(text, path, line, "number")
    if not 1 <= number <= len(names):
        raise DataError(f"{path}:{line}: number {number}; the list of images has 1 to {len(names)}")
    return names[number - 1]


def _dealt(names: list[str], same: list[bool]) -> PairList:
    """Return the pairs fold by fold: a list that only turns once, from genuine to impostor, has no order of folds."""
    flags = np.array(same, dtype=bool)
    if np.count_nonzero(flags[1:] != flags[:-1]) != 1:
        return PairList(names, flags)
    kinds = [np.array_split(np.flatnonzero(flags == kind), FOLDS) for kind in (True, False)]
    order = np.concatenate([part for fold in zip(*kinds) for part in fold])
    return PairList([names[2 * pair + side] for pair in order.tolist() for side in (0, 1)], flags[order])
