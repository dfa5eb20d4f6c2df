"""The paper's orderings, and whether the cells bear them out: differences between two methods, paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcdist.reproduce.paper import PaperTable

HOLDS, DENIED, OPEN = "holds", "does not hold", "not decided"
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t of 1 to 10 degrees


@dataclass(frozen=True)
class Ordering:
    """What of two methods is above in one of our columns, as the paper has it."""

    above: str
    below: str
    column: str
    """Of ours."""
    published: dict[str, float]
    """By column of the paper, how much further up its number is; not negative."""


@dataclass(frozen=True)
class Comparison:
    """An ordering, held against the cells."""

    ordering: Ordering
    differences: dict[int, float]
    """By seed of which both cells are there, how much further up ours is."""

    @property
    def mean(self) -> float | None:
        """Return the mean difference; None without a seed."""
        return statistics.mean(self.differences.values()) if self.differences else None

    @property
    def std(self) -> float | None:
        """Return the spread of the differences over seeds, with n − 1; None for fewer than two."""
        return statistics.stdev(self.differences.values()) if len(self.differences) > 1 else None

    @property
    def half_width_95(self) -> float | None:
        """Return half the width of the mean's 95 % interval, by Student's t; None for fewer than two seeds."""
        count = len(self.differences)
        return None if self.std is None else _T_975[min(count - 1, len(_T_975)) - 1] * self.std / math.sqrt(count)

    @property
    def verdict(self) -> str:
        """Return whether the interval lies above 0, below it, or holds it."""
        if self.mean is None or self.half_width_95 is None or abs(self.mean) <= self.half_width_95:
            return OPEN
        return HOLDS if self.mean > 0 else DENIED

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        rounded = {"mean": self.mean, "std": self.std, "half_width_95": self.half_width_95}
        return (
            asdict(self.ordering)
            | {"differences": {str(seed): round(each, 3) for seed, each in self.differences.items()}}
            | {name: None if value is None else round(value, 3) for name, value in rounded.items()}
            | {"verdict": self.verdict}
        )


def compare(table: PaperTable, measured: dict[str, dict[str, dict[int, float]]]) -> list[Comparison]:
    """Return each of the paper's orderings held against the cells.

    Args:
        measured: by method, by our column, by seed.
    """
    ours = list(dict.fromkeys(column for columns in measured.values() for column in columns))
    found = []
    for ordering in orderings(table, ours):
        above, below = (
            measured.get(method, {}).get(ordering.column, {}) for method in (ordering.above, ordering.below)
        )
        found.append(Comparison(ordering, {seed: above[seed] - below[seed] for seed in above if seed in below}))
    return found


def orderings(table: PaperTable, ours: Sequence[str]) -> Iterator[Ordering]:
    """Yield the paper's orderings in our columns; where the paper's own columns disagree, or are equal, it has none."""
    for first, second in table.compared:
        for column in ours:
            theirs = _columns_of_paper(table, column)
            pairs = {name: [table.published(method, name) for method in (first, second)] for name in theirs}
            known = {name: two[0] - two[1] for name, two in pairs.items() if two[0] is not None and two[1] is not None}
            signs = {math.copysign(1, each) for each in known.values() if each}
            if len(signs) == 1:
                sign = signs.pop()
                above, below = (first, second) if sign > 0 else (second, first)
                yield Ordering(above, below, column, {name: round(sign * each, 3) for name, each in known.items()})


def _columns_of_paper(table: PaperTable, ours: str) -> list[str]:
    """Return the paper's columns that one of ours stands beside: its namesake; all accuracies for another set's."""
    if table.angles:
        kind, _, own_set = ours.partition(" ")
        return [f"{kind}2"] if own_set else [ours]
    namesake = [column for column in table.columns if _plain(column) == _plain(ours)]
    return namesake or list(table.columns)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
