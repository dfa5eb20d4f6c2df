"""A reproduced table as a block of a Markdown file, which the command writes anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcdist.errors import DataError
from arcdist.reproduce.table import ORDERING_HEADINGS, columns, filled, told, told_ordering, verdicts


def block(name: str, command: str, collected: dict[str, Any]) -> str:
    """Return the table, its orderings and what they stand on, between two marks that say ``name``."""
    published, ours = columns(collected)
    lines = [_begin(name), f"### {collected['title']}", "", f"`{command}`: {filled(collected)}.{_made(collected)}", ""]
    headings = ["loss", *(f"paper {key}" for key in published), *(f"ours {key}" for key in ours), "seeds"]
    rows = []
    for row in collected["rows"].values():
        theirs = [f"{value:.2f}" if (value := row["published"][key]) is not None else "–" for key in published]
        mine = [told(row["measured"].get(key)) for key in ours]
        rows.append([row["label"], *theirs, *mine, str(len(row["seeds"]))])
    lines += _table(headings, rows, left=1)
    if collected["orderings"]:
        lines += ["", f"The paper's orderings, by differences paired over seeds: {verdicts(collected)}.", ""]
        lines += _table(ORDERING_HEADINGS, [told_ordering(collected, each) for each in collected["orderings"]], left=2)
    if collected["missing"]:
        lines += ["", f"Missing: {', '.join(collected['missing'])}."]
    return "\n".join([*lines, _end(name)]) + "\n"


def put_into(path: str | Path, name: str, text: str) -> None:
    """Write the block into a file in place of the one between its marks; a new file holds only the block.

    Raises DataError for a file that has no such marks, once each and in order, or cannot be read or written.
    """
    path = Path(path)
    try:
        if path.exists():
            before, begin, rest = path.read_text(encoding="utf-8").partition(_begin(name))
            _, end, after = rest.partition(_end(name) + "\n")
            if not begin or not end:
                marks = f"{_begin(name)} and {_end(name)}"
                raise DataError(f"{path}: has no block to fill; put these two lines where it belongs: {marks}")
            text = before + text + after
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None


def _begin(name: str) -> str:
    return f"<!-- {name}: written by arcdist reproduce -->"


def _end(name: str) -> str:
    return f"<!-- {name}: end -->"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    rules = ["---" if number < left else "---:" for number in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows)]


def _made(collected: dict[str, Any]) -> str:
    trained = collected["trained"]
    if not trained["machine"]:
        return ""
    torch = ", ".join(sorted({versions["torch"] for versions in trained["versions"]}))
    steps = ", ".join(f"{each:,}" for each in sorted(trained["steps"]))
    made = f" Trained for {steps} steps on: {'; '.join(trained['machine'])}; torch {torch}"
    seconds = trained["median_seconds"]
    return made + ("." if seconds is None else f"; half of the cells took less than {seconds:.0f} s.")
