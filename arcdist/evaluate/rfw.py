"""Racial Faces in the Wild: LFW's protocol for each of four groups, and how far the groups lie apart.

Source: Wang et al., Racial Faces in the Wild (ICCV 2019). Lists are read to their description: none was at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError
from arcdist.evaluate.lists import integer, read_lines

GROUPS = ("African", "Asian", "Caucasian", "Indian")


@dataclass(frozen=True)
class GroupSpread:
    """How accuracy differs over groups; accuracies are in [0, 1]."""

    accuracy: dict[str, float]
    mean: float
    std: float
    """Population standard deviation over the groups; papers do not say whether theirs is."""
    std_unbiased: float
    """With ``groups − 1``."""
    error_ratio: float
    """SER: the largest error over the smallest; ∞ where a group has none."""


def read_rfw_pairs(path: str | Path) -> tuple[list[tuple[str, str]], npt.NDArray[np.bool_]]:
    """Return the pairs of ``African_pairs.txt``, as image paths ``id/id_0002.jpg``, and which are of one person.

    Lines are ``m.0h1crds⇥2⇥3`` for one person and ``m.04zxpvp⇥2⇥m.03ggz1⇥5`` for two; there is no header.
    Raises DataError for any other line, and for two equal people in a line for two.
    """
    pairs, same = [], []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split("\t")
        if len(fields) not in (3, 4):
            raise DataError(f"{path}:{number}: {line[:80]!r}; 'ID⇥2⇥3' or 'ID⇥2⇥OTHER⇥5' is the form of a pair")
        first, other = fields[0].strip(), fields[-2].strip() if len(fields) == 4 else fields[0].strip()
        if len(fields) == 4 and first == other:
            raise DataError(f"{path}:{number}: {first} twice, in a line for two people")
        numbers = [integer(text, path, number, "image number") for text in (fields[1], fields[-1])]
        # Ids hold a dot, so names are put together and never parted at one.
        pairs.append((f"{first}/{first}_{numbers[0]:04d}.jpg", f"{other}/{other}_{numbers[1]:04d}.jpg"))
        same.append(len(fields) == 3)
    if not pairs:
        raise DataError(f"{path}: holds no pair")
    return pairs, np.array(same)


def group_spread(accuracy: Mapping[str, float]) -> GroupSpread:
    """Return mean and spread of the groups' accuracies, each of its own threshold.

    Raises DataError for fewer than two groups.
    """
    values = np.array(list(accuracy.values()), dtype=np.float64)
    if len(values) < 2 or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"accuracies {dict(accuracy)}: at least two groups are needed, each in [0, 1]")
    errors = 1.0 - values
    ratio = float(errors.max() / errors.min()) if errors.min() > 0 else float("inf")
    return GroupSpread(dict(accuracy), float(values.mean()), float(values.std()), float(values.std(ddof=1)), ratio)
