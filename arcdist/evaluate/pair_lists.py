"""Lists of pairs of images for verification, in the forms in which benchmarks give them out.

Seen in the original: LFW, XQLFW, CFP. CALFW, CPLFW, SLLFW, AgeDB and insightface's ``pairs_label.txt`` are read to
their description.
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
from arcdist.evaluate.matlab import Value, read_mat
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


def read_sllfw(path: str | Path) -> PairList:
    """Return the pairs of ``pair_SLLFW.txt``: two lines a pair, ``NAME/NAME_0001.jpg``; equal folders are one person.

    Raises DataError for an odd number of lines, a name without a folder, a pair that is there twice or of one image.
    """
    lines = [(number, name) for number, (name,) in read_fields(path, "image")]
    if len(lines) % 2:
        raise DataError(f"{path}: {len(lines)} lines; a pair has two")
    names: list[str] = []
    same: list[bool] = []
    line_of: dict[frozenset[str], int] = {}
    for (number, first), (_, second) in zip(lines[::2], lines[1::2]):
        folders = [name.rpartition("/")[0] for name in (first, second)]
        if not all(folders):
            raise DataError(f"{path}:{number}: {first} and {second}: NAME/NAME_0001.jpg is the form of an image")
        if first == second:
            raise DataError(f"{path}:{number}: {first} is paired with itself; are two lines a pair?")
        earlier = line_of.setdefault(frozenset((first, second)), number)
        if earlier != number:
            raise DataError(f"{path}:{number}: {first} and {second} are a pair on line {earlier} already")
        names += [first, second]
        same.append(folders[0] == folders[1])
    return _dealt(names, same)


def read_agedb(path: str | Path) -> PairList:
    """Return the pairs of AgeDB's ``04_FINAL_protocol_30_years.mat`` (or 5, 10, 20 years), as ``STEM.jpg``.

    ``splits`` are ten cells; each has a matrix of two faces a pair, with a stem and an age, and labels of 1 and −1.
    Labels are the list's own; insightface's packer takes names instead, up to the first underscore. A pair may come
    twice.

    Raises DataError for a file of another make, splits of different lengths, and an image that is paired with itself.
    """
    splits = read_mat(path).get("splits")
    if not isinstance(splits, list) or len(splits) != FOLDS:
        raise DataError(f"{path}: has no variable 'splits' of {FOLDS} cells; is it AgeDB's FINAL_protocol?")
    names: list[str] = []
    same: list[bool] = []
    for number, split in enumerate(splits, 1):
        where = f"{path}: split {number}"
        faces, labels = _members(split, f"{where}: pairs and labels")[:2]
        if not isinstance(faces, list) or not isinstance(labels, np.ndarray) or len(faces) != 2 * labels.size:
            raise DataError(f"{where}: is no matrix of two faces a pair, and a label a pair")
        if len(faces) * number != len(names) + len(faces):
            raise DataError(f"{where}: has {labels.size} pairs, those before it {len(same) // (number - 1)}")
        if not np.isin(labels, (1, -1)).all():
            raise DataError(f"{where}: labels {np.unique(labels)[:5].tolist()}: must be 1 (one person) or -1")
        stems = [_members(face, f"{where}: a face's stem and age")[0] for face in faces]
        for at, (first, second) in enumerate(zip(stems[::2], stems[1::2]), 1):
            if not isinstance(first, str) or not isinstance(second, str) or first == second:
                raise DataError(f"{where}: pair {at}: {first!r} and {second!r} are not the names of two images")
            names += [f"{first}.jpg", f"{second}.jpg"]
        same += (labels.ravel() == 1).tolist()
    return PairList(names, np.array(same))


def _members(value: Value, what: str) -> list[Value]:
    """Return the two or more fields of a structure, or entries of a cell, in their order."""
    members = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(members, list) or len(members) < 2:
        raise DataError(f"{what}: are not there; is it AgeDB's FINAL_protocol?")
    return members


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
