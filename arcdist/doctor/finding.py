"""What the doctor has found: a subject, what it is like, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "advice", "fault"]
_RISING: tuple[Verdict, ...] = ("ok", "advice", "fault")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: what was looked at.
        found: what it is like.
        verdict: ``advice`` where training runs, but worse than it could; ``fault`` where it cannot.
        advice: what to do; empty where all is well.
        figures: the numbers behind it, for a file.
    """

    subject: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A finding, and the ranks that share it; ``ranks`` is empty where all do."""

    finding: Finding
    ranks: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        """The ranks in words."""
        return "" if not self.ranks else f"rank{'s' * (len(self.ranks) > 1)} {', '.join(map(str, self.ranks))}"


def rows(of_ranks: Sequence[Sequence[Finding]]) -> list[Row]:
    """Return the findings of all ranks, one row for each subject, or for each way in which ranks differ in it."""
    held: dict[str, dict[tuple[str, str], list[int]]] = {}
    first: dict[tuple[str, str, str], Finding] = {}
    looked: dict[str, int] = {}
    for rank, findings in enumerate(of_ranks):
        for finding in findings:
            what = (finding.found, finding.advice)
            held.setdefault(finding.subject, {}).setdefault(what, []).append(rank)
            first.setdefault((finding.subject, *what), finding)
            looked[finding.subject] = looked.get(finding.subject, 0) + 1
    return [
        Row(first[(subject, *what)], () if len(ranks) == looked[subject] else tuple(ranks))
        for subject, ways in held.items()
        for what, ranks in ways.items()
    ]


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict."""
    return max((finding.verdict for finding in findings), key=_RISING.index, default="ok")
