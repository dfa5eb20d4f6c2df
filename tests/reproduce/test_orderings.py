"""Which of the paper's orderings hold, and where the table is put."""

import json
from pathlib import Path

import pytest
from scipy import stats

from arcdist.cli.reproduce import main
from arcdist.errors import ConfigError, DataError
from arcdist.reproduce.cell import cell_path
from arcdist.reproduce.markdown import block, put_into
from arcdist.reproduce.orderings import DENIED, HOLDS, OPEN, Comparison, Ordering, compare, orderings
from arcdist.reproduce.paper import TABLES
from arcdist.reproduce.table import collect, filled

SETTING = {"recipe": "reproduce_scaled", "scale": 24.0, "start": 700, "set": []}
ANY = Ordering("arcface_0.5", "softmax", "held_out", {})


def write_cell(folder: Path, method: str, seed: int, accuracy: float, **more: object) -> None:
    path = cell_path(folder, method, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    angles = {"W-EC": 10.0 + seed, "W-Inter": 70.0, "Intra": 40.0, "Inter": 60.0}
    both = {"train": angles, "held_out": angles | {"W-EC": None, "W-Inter": None}}
    cell = {"sets": {"held_out": {"accuracy": accuracy}}, "angles_deg": both, "setting": SETTING}
    path.write_text(json.dumps(cell | more))


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    above, below = [91.0, 93.5, 92.2, 95.0], [90.1, 92.9, 92.5, 93.0]
    found = Comparison(ANY, dict(enumerate(a - b for a, b in zip(above, below))))
    expected = stats.ttest_rel(above, below).confidence_interval(0.95)
    assert found.mean is not None
    assert found.half_width_95 is not None
    low, high = found.mean - found.half_width_95, found.mean + found.half_width_95
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-3)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1.0, 1.1, 0.9], HOLDS),
        ([-1.0, -1.1, -0.9], DENIED),
        ([1.0, -0.5, 2.0], OPEN),
        ([5.0], OPEN),
        ([], OPEN),
        ([0.0, 0.0, 0.0], OPEN),
    ],
)
def test_an_ordering_is_decided_where_its_interval_leaves_zero_out(differences: list[float], verdict: str) -> None:
    assert Comparison(ANY, dict(enumerate(differences))).verdict == verdict


@pytest.mark.parametrize("table", TABLES)
def test_every_pair_that_is_compared_is_ordered_by_the_paper(table: str) -> None:
    paper = TABLES[table]
    ours = [*paper.columns[:4], "Intra held_out", "Inter held_out"] if paper.angles else ["held_out"]
    found = list(orderings(paper, ours))
    assert {frozenset((each.above, each.below)) for each in found} == {frozenset(pair) for pair in paper.compared}
    assert all(value >= 0 for each in found for value in each.published.values())


def test_a_set_of_the_papers_is_held_against_its_own_column() -> None:
    found = list(orderings(TABLES["table2"], ["lfw", "cfp_fp"]))
    assert {name for each in found if each.column == "lfw" for name in each.published} == {"LFW"}
    assert {name for each in found if each.column == "cfp_fp" for name in each.published} == {"CFP-FP"}


def test_only_seeds_of_which_both_cells_are_there_are_compared() -> None:
    measured = {"arcface_0.5": {"held_out": {0: 90.0, 1: 91.0, 2: 92.0}}, "softmax": {"held_out": {1: 89.5, 2: 90.0}}}
    found = next(each for each in compare(TABLES["table2"], measured) if each.ordering.below == "softmax")
    assert found.differences == {1: 1.5, 2: 2.0}


def test_a_table_that_is_partly_filled_says_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_cell(
            tmp_path, "softmax", seed, 0.9, steps=400, machine="a machine", versions={"torch": "2.13"}, seconds=9
        )
        write_cell(tmp_path, "arcface_0.5", seed, 0.95 + 0.001 * seed)
    page, picture = tmp_path / "page.md", tmp_path / "table.svg"
    assert main(["table2", "cells=0", f"folder={tmp_path}", f"markdown={page}", f"picture={picture}"]) == 0
    out = capsys.readouterr().out
    assert "PARTLY FILLED: 4 of 54 cells" in " ".join(out.split())
    assert "1 hold, 0 do not, 22 are not decided" in " ".join(out.split())
    text = page.read_text()
    assert (
        "`arcdist reproduce table2`: PARTLY FILLED: 4 of 54 cells. Trained for 400 steps on: a machine; torch 2.13;"
        in text
    )
    assert "| ArcFace (0.5) over Softmax | held_out | +0.45, +1.17, +2.82 | +5.05 ± 0.07 |" in text
    assert str(tmp_path) not in text
    assert "PARTLY FILLED" in picture.read_text()
    assert (tmp_path / "table_orderings.svg").stat().st_size > 10_000


def test_a_table_without_cells_is_drawn_too(tmp_path: Path) -> None:
    for table in TABLES:
        picture = tmp_path / f"{table}.png"
        assert main([table, "cells=0", f"folder={tmp_path}", f"picture={picture}"]) == 0
        assert picture.stat().st_size > 10_000


def test_a_block_replaces_the_one_between_its_marks(tmp_path: Path) -> None:
    for seed in range(3):
        write_cell(tmp_path, "norm_softmax", seed, 0.9)
    collected = collect(TABLES["table3"], tmp_path, range(3))
    assert filled(collected) == "PARTLY FILLED: 3 of 15 cells"
    page = tmp_path / "page.md"
    text = block("table3", "arcdist reproduce table3", collected)
    begin, *_, end = text.splitlines()
    page.write_text(f"# Before\n\n{begin}\nold\n{end}\nafter\n")
    put_into(page, "table3", text)
    put_into(page, "table3", text)
    assert page.read_text() == f"# Before\n\n{text}after\n"
    with pytest.raises(DataError, match="has no block to fill; put these two lines"):
        put_into(page, "table2", "text")


@pytest.mark.parametrize("picture", ["table.xyz", "a_file/table.png"])
def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path: Path, picture: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(DataError, match="cannot be drawn"):
        main(["table2", "cells=0", f"folder={tmp_path}", f"picture={tmp_path / picture}"])


def test_a_cell_of_another_setting_is_told_by_no_table(tmp_path: Path) -> None:
    write_cell(tmp_path, "softmax", 0, 0.9, setting=SETTING | {"scale": 30.0})
    with pytest.raises(ConfigError, match="another folder="):
        main(["table2", "methods=[cm1]", "cells=0", f"folder={tmp_path}"])
