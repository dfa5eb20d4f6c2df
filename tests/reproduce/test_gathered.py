"""Cells that lie in one file, and the tables that are committed."""

import json
from pathlib import Path

import pytest

from arcdist.cli.reproduce import main
from arcdist.errors import DataError
from arcdist.reproduce.cell import cell_path
from arcdist.reproduce.gathered import gather, spread
from arcdist.reproduce.paper import TABLES

SETTING = {"recipe": "reproduce_scaled", "scale": 24.0, "start": 700, "set": []}
ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "results" / "reproduction.json"


def write_cell(folder: Path, method: str, seed: int, **more: object) -> None:
    path = cell_path(folder, method, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    cell = {"method": method, "seed": seed, "setting": SETTING, "sets": {"pairs": {"accuracy": 0.9}}}
    path.write_text(json.dumps(cell | {"angles_deg": {"train": {}}} | more))


def test_gathered_cells_are_the_cells_without_their_seconds(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path / "a", "softmax", seed, seconds=9.5, images_per_s=700.0, loss=seed)
    assert gather(tmp_path / "a", range(3), tmp_path / "all.json") == 2
    write_cell(tmp_path / "b", "softmax", 1, loss="its own")
    spread(tmp_path / "all.json", tmp_path / "b")
    found = [json.loads(cell_path(tmp_path / "b", "softmax", seed).read_text()) for seed in (0, 1)]
    assert [cell["loss"] for cell in found] == [0, "its own"]
    assert not found[0].keys() & {"seconds", "images_per_s"}
    assert found[0]["setting"] == SETTING


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{"method": "../softmax", "seed": 0}]}', '{"cells": [1]}'])
def test_a_file_without_gathered_cells_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "all.json").write_text(text)
    with pytest.raises(DataError, match="holds no gathered cells"):
        main(["table2", "cells=0", f"folder={tmp_path}", f"cells_from={tmp_path / 'all.json'}"])


def test_a_method_whose_cells_are_anothers_trains_as_that_one() -> None:
    methods = {name: method for table in TABLES.values() for name, method in table.methods.items()}
    shared = [method for method in methods.values() if method.trained_as]
    assert shared
    for method in shared:
        other = methods[method.trained_as]
        assert (method.overrides, method.then, other.trained_as) == (other.overrides, other.then, "")


def test_rows_that_share_a_cell_are_told_by_one(tmp_path: Path) -> None:
    write_cell(tmp_path, "vgg_face", 0)
    table = tmp_path / "table.json"
    assert main(["table4", "seeds=1", "cells=0", f"folder={tmp_path}", f"json={table}"]) == 0
    told = json.loads(table.read_text())
    assert [name for name, row in told["rows"].items() if row["seeds"]] == ["vgg_face", "baidu"]
    assert told["missing"].count("softmax.seed0") == 1


@pytest.mark.parametrize("table", TABLES)
def test_the_committed_tables_are_told_by_the_committed_cells(tmp_path: Path, table: str) -> None:
    page, copy = ROOT / "docs" / "reproduction.md", tmp_path / "page.md"
    copy.write_text(page.read_text())
    assert main([table, "cells=0", f"cells_from={COMMITTED}", f"folder={tmp_path}", f"markdown={copy}"]) == 0
    assert copy.read_text() == page.read_text()
