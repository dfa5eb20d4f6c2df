"""The pictures of ``arcdist reproduce``: the table as bars, and its orderings as intervals."""

from pathlib import Path
from typing import Any

from arcdist.errors import DataError
from arcdist.reproduce.table import columns, filled, verdicts


def draw_table(path: str | Path, collected: dict[str, Any]) -> list[Path]:
    """Write the table to a file, .png or .svg, and its orderings to another beside it; return the paths.

    Raises DataError where they cannot be written.
    """
    from arcdist.evaluate import plots_table  # matplotlib takes a second to import

    path = Path(path)
    title = f"{collected['title']}\n{filled(collected)}".replace("; ", "\n")
    labels = [row["label"] for row in collected["rows"].values()]
    unit = "degrees" if collected["angles"] else "errors (100 − accuracy), %: shorter is better"
    note = f"{unit}; bars: means over seeds; whiskers: ± their standard deviation; dots: seeds"
    drawn = [path]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plots_table.table_bars(path, title, note, labels, _panels(collected))
        groups = _groups(collected)
        if any(row.mean is not None for rows in groups.values() for row in rows):
            drawn.append(path.with_stem(f"{path.stem}_orderings"))
            title = f"The orderings of the paper's {collected['title'].partition(':')[0]}\n{verdicts(collected)}"
            note = (
                "how much the first is above the second: mean of differences paired by seed (dots), its 95 % interval\n"
                "blue: the paper's ordering holds; red: it does not; gray: not decided"
            )
            plots_table.interval_rows(drawn[-1], title, note, groups)
    except (OSError, ValueError) as error:  # ValueError: an ending that is no kind of picture
        raise DataError(f"{path}: cannot be drawn: {error}") from None
    return drawn


def _panels(collected: dict[str, Any]) -> list[Any]:
    from arcdist.evaluate.plots_table import BarPanel

    rows = {row["label"]: row for row in collected["rows"].values()}
    published, ours = columns(collected)

    def shown(value: float) -> float:
        return value if collected["angles"] else 100 - value

    def theirs(column: str) -> dict[str, float]:
        values = {label: row["published"].get(column) for label, row in rows.items()}
        return {label: shown(value) for label, value in values.items() if value is not None}

    panels = []
    for column in ours:
        measured = {
            label: row["measured"][column]["by_seed"] for label, row in rows.items() if column in row["measured"]
        }
        values = {label: [shown(value) for value in by_seed.values()] for label, by_seed in measured.items()}
        kind, _, own_set = column.partition(" ")
        marks = theirs(f"{kind}2" if own_set else column) if collected["angles"] else {}
        panels.append(BarPanel(column if collected["angles"] else f"ours: {column}", values, marks, True))
    if not collected["angles"] or not ours:
        one_each = {column: {label: [value] for label, value in theirs(column).items()} for column in published}
        panels += [BarPanel(f"paper: {column}", values, {}, False) for column, values in one_each.items()]
    return panels


def _groups(collected: dict[str, Any]) -> dict[str, list[Any]]:
    from arcdist.evaluate.plots_table import Interval

    groups: dict[str, list[Any]] = {}
    for each in collected["orderings"]:
        label = " over ".join(collected["rows"][each[side]]["label"] for side in ("above", "below"))
        values = list(each["differences"].values())
        unit = "degrees" if collected["angles"] else "percentage points"
        group = groups.setdefault(f"{each['column']}, {unit}", [])
        group.append(Interval(label, each["mean"], each["half_width_95"], values))
    return groups
