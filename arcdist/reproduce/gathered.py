"""All cells of a reproduction in one file: a line each, to be committed, mailed, and told as a table again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcdist.errors import DataError
from arcdist.evaluate.report import write_json, write_text
from arcdist.reproduce.cell import cell_path
from arcdist.reproduce.paper import TABLES
from arcdist.reproduce.table import read_cell

_OF_THE_HOUR = ("seconds", "images_per_s")  # of what else the machine had to do, not of the loss


def gather(folder: Path, seeds: Sequence[int], path: str | Path) -> int:
    """Write a folder's cells to one file, without how long they took; return how many there are.

    Raises DataError for a file that is no cell, or where the file cannot be written.
    """
    lines = []
    for method in _known_cells():
        for seed in seeds:
            if (file := cell_path(folder, method, seed)).exists():
                cell = {key: value for key, value in read_cell(file).items() if key not in _OF_THE_HOUR}
                lines.append(json.dumps(cell, ensure_ascii=False))
    body = ",\n".join(lines)
    write_text(path, f'{{"cells": [\n{body}\n]}}\n')
    return len(lines)


def spread(path: str | Path, folder: Path) -> None:
    """Write the cells of a gathered file into a folder, those apart that are there already.

    Raises DataError for a file that holds no cells, or where a cell cannot be written.
    """
    for cell in _read(Path(path)):
        file = cell_path(folder, cell["method"], cell["seed"])
        if not file.exists():
            write_json(file, cell)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        known = _known_cells()
        for cell in cells:
            if cell["method"] not in known or type(cell["seed"]) is not int or cell["seed"] < 0:
                raise ValueError(f"{cell['method']!r} with seed {cell['seed']!r} is no cell of a table")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: holds no gathered cells of a table ({error})") from None
    return cells


def _known_cells() -> list[str]:
    """Return the methods that are trained, once each, whichever tables they are rows of."""
    return list(dict.fromkeys(table.cell_of(method) for table in TABLES.values() for method in table.methods))
