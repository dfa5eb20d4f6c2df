"""A reproduced table: the cells that are there, beside what the paper published."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from arcdist.errors import DataError
from arcdist.reproduce.cell import cell_path
from arcdist.reproduce.orderings import DENIED, HOLDS, OPEN, compare
from arcdist.reproduce.paper import PaperTable

ANGLE_COLUMNS = (("train", "W-EC"), ("train", "W-Inter"), ("train", "Intra"), ("train", "Inter"))
SET_ANGLES = ("Intra", "Inter")
VERDICTS = {HOLDS: "hold", DENIED: "do not", OPEN: "are not decided"}


def collect(table: PaperTable, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the table as a JSON object holds it.

    By method what was published, and what was measured: by column mean, std over seeds (n − 1; null for a single one)
    and the value of each seed. Then the paper's orderings, how many cells there are, which are missing, and on what the
    cells were trained.
    """
    rows: dict[str, Any] = {}
    missing, found = [], []
    measured: dict[str, dict[str, dict[int, float]]] = {}
    for name, method in table.methods.items():
        cells = {}
        for seed in seeds:
            path = cell_path(folder, table.cell_of(name), seed)
            if path.exists():
                cells[seed] = read_cell(path)
            else:
                missing.append(f"{table.cell_of(name)}.seed{seed}")
        measured[name] = _measured(table, cells)
        found += cells.values()
        rows[name] = {
            "label": method.label,
            "published": dict(zip(table.columns, method.published)),
            "seeds": list(cells),
            "measured": {key: _mean_and_std(values) for key, values in measured[name].items()},
        }
    return {
        "title": table.title,
        "angles": table.angles,
        "cells": len(found),
        "of_cells": len(found) + len(missing),
        "rows": rows,
        "orderings": [comparison.as_dict() for comparison in compare(table, measured)],
        "missing": list(dict.fromkeys(missing)),
        "trained": _trained(found),
    }


def _trained(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the cells say of their making: each value that occurs, and the median of the seconds."""
    told: dict[str, Any] = {}
    for key in ("steps", "world_size", "machine", "versions"):
        told[key] = list({json.dumps(cell[key]): cell[key] for cell in cells if key in cell}.values())
    seconds = [cell["seconds"] for cell in cells if "seconds" in cell]
    return told | {"median_seconds": round(statistics.median(seconds), 1) if seconds else None}


def read_cell(path: Path) -> dict[str, Any]:
    """Return what a cell's file says.

    Errors: DataError for a file that is no cell.
    """
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no cell of a table ({error}); remove it, and the cell is trained again") from None
    if not isinstance(cell, dict) or not {"sets", "angles_deg"} <= cell.keys():
        raise DataError(f"{path}: is no cell of a table; remove it, and the cell is trained again")
    return cell


def _measured(table: PaperTable, cells: dict[int, dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Return by column the value of each seed's cell; angles in degrees, accuracies in percent."""
    found: dict[str, dict[int, float]] = {}
    for seed, cell in cells.items():
        if table.angles:
            angles = cell["angles_deg"]
            values = {name: angles["train"][key] for name, (_, key) in zip(table.columns, ANGLE_COLUMNS)}
            for other in [name for name in angles if name != "train"]:
                values |= {f"{key} {other}": angles[other][key] for key in SET_ANGLES}
        else:
            values = {name: 100 * scored["accuracy"] for name, scored in cell["sets"].items()}
        for key, value in values.items():
            if value is not None:
                found.setdefault(key, {})[seed] = value
    return found


def _mean_and_std(by_seed: dict[int, float]) -> dict[str, Any]:
    values = list(by_seed.values())
    std = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": round(statistics.mean(values), 3),
        "std": None if std is None else round(std, 3),
        "by_seed": {str(seed): round(value, 3) for seed, value in by_seed.items()},
    }


def columns(collected: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of the paper's columns and of ours."""
    rows = collected["rows"].values()
    theirs, ours = ([key for row in rows for key in row[kind]] for kind in ("published", "measured"))
    return list(dict.fromkeys(theirs)), list(dict.fromkeys(ours))


def filled(collected: dict[str, Any]) -> str:
    """Return how much of the table there is, in words."""
    cells, whole = collected["cells"], collected["of_cells"]
    return f"all {whole} cells" if cells == whole else f"PARTLY FILLED: {cells} of {whole} cells"


def told(value: dict[str, Any] | None) -> str:
    """Return a measured value as ``mean ± std``; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value['mean']:.2f}" + ("" if value["std"] is None else f" ± {value['std']:.2f}")


def told_ordering(collected: dict[str, Any], ordering: dict[str, Any]) -> list[str]:
    """Return an ordering's cells: what, in which of our columns, the paper's difference, ours, its interval, verdict.

    A difference is how much further up the first one is, ± the spread over seeds.
    """
    above, below = (collected["rows"][ordering[side]]["label"] for side in ("above", "below"))
    mean, half = ordering["mean"], ordering["half_width_95"]
    return [
        f"{above} over {below}",
        ordering["column"],
        ", ".join(map(_signed, ordering["published"].values())),
        "–" if mean is None else _signed(mean) + ("" if half is None else f" ± {ordering['std']:.2f}"),
        "–" if half is None else f"{_signed(mean - half)} to {_signed(mean + half)}",
        str(len(ordering["differences"])),
        ordering["verdict"],
    ]


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


ORDERING_HEADINGS = ("above", "ours", "paper", "difference", "95 % interval", "seeds", "")


def printed(collected: dict[str, Any]) -> list[Table]:
    """Return for a terminal the table, what the paper published beside ours as mean ± std, and the orderings."""
    published, ours = columns(collected)
    table = Table(title=f"{collected['title']} – {filled(collected)}", title_justify="left", title_style="bold")
    table.add_column("loss", no_wrap=True)
    for key in published:
        table.add_column(f"paper\n{key}", justify="right", style="dim", no_wrap=True)
    for key in ours:
        table.add_column(f"ours\n{key}", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right")
    for row in collected["rows"].values():
        theirs = [f"{value:.2f}" if (value := row["published"][key]) is not None else "–" for key in published]
        mine = [told(row["measured"].get(key)) for key in ours]
        table.add_row(row["label"], *theirs, *mine, str(len(row["seeds"])))

    about = f"The paper's orderings, by differences paired over seeds: {verdicts(collected)}"
    held = Table(title=about, title_justify="left", title_style="bold")
    for heading in ORDERING_HEADINGS:
        held.add_column(heading, justify="left" if heading in ("above", "ours", "") else "right")
    for ordering in collected["orderings"]:
        held.add_row(*told_ordering(collected, ordering))
    return [table, held] if collected["orderings"] else [table]


def verdicts(collected: dict[str, Any]) -> str:
    """Return how many orderings hold, do not, and are not decided, in words."""
    found = [ordering["verdict"] for ordering in collected["orderings"]]
    return ", ".join(f"{found.count(verdict)} {words}" for verdict, words in VERDICTS.items())
