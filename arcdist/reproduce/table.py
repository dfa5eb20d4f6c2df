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
from arcdist.reproduce.paper import PaperTable

ANGLE_COLUMNS = (("train", "W-EC"), ("train", "W-Inter"), ("train", "Intra"), ("train", "Inter"))
SET_ANGLES = ("Intra", "Inter")


def collect(table: PaperTable, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the table as a JSON object holds it: by method what was published, measured (mean, std, seeds), missing.

    ``std`` is over seeds, with n − 1; null for a single one.
    """
    rows: dict[str, Any] = {}
    missing = []
    for name, method in table.methods.items():
        cells = []
        for seed in seeds:
            path = cell_path(folder, name, seed)
            if path.exists():
                cells.append((seed, read_cell(path)))
            else:
                missing.append(f"{name}.seed{seed}")
        measured = _measured(table, [cell for _, cell in cells])
        rows[name] = {
            "label": method.label,
            "published": dict(zip(table.columns, method.published)),
            "seeds": [seed for seed, _ in cells],
            "measured": {key: _mean_and_std(values) for key, values in measured.items()},
        }
    return {"title": table.title, "rows": rows, "missing": missing}


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


def _measured(table: PaperTable, cells: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return by column the values of the cells; angles in degrees, accuracies in percent."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        if table.angles:
            angles = cell["angles_deg"]
            values = {name: angles["train"][key] for name, (_, key) in zip(table.columns, ANGLE_COLUMNS)}
            for other in [name for name in angles if name != "train"]:
                values |= {f"{key} {other}": angles[other][key] for key in SET_ANGLES}
        else:
            values = {name: 100 * scored["accuracy"] for name, scored in cell["sets"].items()}
        for key, value in values.items():
            if value is not None:
                found.setdefault(key, []).append(value)
    return found


def _mean_and_std(values: list[float]) -> dict[str, float | None]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 3), "std": None if std is None else round(std, 3)}


def printed(collected: dict[str, Any]) -> Table:
    """Return the table for a terminal: what the paper published, then ours as mean ± std, and over how many seeds."""
    rows = collected["rows"].values()
    published = list(dict.fromkeys(key for row in rows for key in row["published"]))
    ours = list(dict.fromkeys(key for row in rows for key in row["measured"]))
    table = Table(title=collected["title"], title_justify="left", title_style="bold")
    table.add_column("loss", no_wrap=True)
    for key in published:
        table.add_column(f"paper\n{key}", justify="right", style="dim")
    for key in ours:
        table.add_column(f"ours\n{key}", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right")
    for row in rows:
        theirs = [f"{value:.2f}" if (value := row["published"][key]) is not None else "–" for key in published]
        mine = [_told(row["measured"].get(key)) for key in ours]
        table.add_row(row["label"], *theirs, *mine, str(len(row["seeds"])))
    return table


def _told(value: dict[str, float | None] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.2f}" + ("" if value["std"] is None else f" ± {value['std']:.2f}")
