"""``arcdist bench compare``: slower beyond the spread is told, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest

from arcdist.cli.main import main

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FILES = ["bench_data.amd_epyc_avx512", "bench_evaluate.intel_avx512", "bench_head.85742.intel_amx"]
FILES += ["guards.intel_avx512", "stall.intel_avx512", "bench_cleaning.sface", "soak", "fuzz"]


def times_as_long(node: Any, factor: float) -> Any:
    """Return a result with every time in it ``factor`` times as long."""
    if isinstance(node, list):
        return [times_as_long(item, factor) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        is_time = key.endswith("_s") and isinstance(value, float)
        result[key] = value * factor if is_time else times_as_long(value, factor)
        if key == "seconds" and isinstance(value, dict):
            result[key] = {kind: [s * factor for s in seconds] for kind, seconds in value.items()}
    return result


def compare(tmp_path: Path, before: Any, after: Any, *more: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the result of comparing two contents."""
    for name, content in (("a", before), ("b", after)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [f"{tmp_path}/a.json", f"{tmp_path}/b.json", "--json", f"{tmp_path}/c.json"]
    code = main(["bench", "compare", *files, *more])
    return code, json.loads((tmp_path / "c.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_as_fast_as_itself_and_slower_three_times_as_long(name: str, tmp_path: Path) -> None:
    content = json.loads((RESULTS / f"{name}.json").read_text())
    code, same = compare(tmp_path, content, content)
    assert code == 0
    assert same["rows"]
    assert {row["verdict"] for row in same["rows"]} == {"same"}
    code, slow = compare(tmp_path, content, times_as_long(content, 3))
    assert code == 1
    assert slow["slower"] > 0
    assert all(row["times_as_long"] == pytest.approx(3, rel=1e-3) for row in slow["rows"])
    assert compare(tmp_path, content, times_as_long(content, 3), "fail=false")[0] == 0
    code, fast = compare(tmp_path, times_as_long(content, 3), content)
    assert code == 0
    assert fast["slower"] == 0
    assert "faster" in {row["verdict"] for row in fast["rows"]}


def one(median: float, low: float, high: float, name: str = "ours") -> dict[str, Any]:
    """Return a bench's content with one time."""
    row = {"implementation": name, "case": {"rows": 4}, "median_s": median, "p20_s": low, "p80_s": high}
    return {"bench": "step", "machine": {"cpu": "any"}, "rows": [row]}


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ((1.5, 1.05, 1.6), "same"),  # overlaps what was before
        ((1.5, 1.2, 1.6), "slower"),
        ((0.5, 0.4, 0.8), "faster"),
        ((0.99, 0.985, 0.995), "same"),
    ],
)
def test_only_what_leaves_the_spread_is_a_change(
    after: tuple[float, float, float], verdict: str, tmp_path: Path
) -> None:
    _, result = compare(tmp_path, one(1.0, 0.9, 1.1), one(*after))
    assert [row["verdict"] for row in result["rows"]] == [verdict]


def test_a_small_change_beyond_a_smaller_spread_is_none(tmp_path: Path) -> None:
    before, after = one(1.0, 0.999, 1.001), one(1.03, 1.029, 1.031)
    assert compare(tmp_path, before, after)[0] == 0
    assert compare(tmp_path, before, after, "at_least=0.02")[0] == 1


def test_what_stands_in_one_file_only_is_told_and_is_no_regression(tmp_path: Path) -> None:
    before, after = one(1.0, 0.9, 1.1), one(1.0, 0.9, 1.1)
    after["rows"] += one(9.0, 8.9, 9.1, "theirs")["rows"]
    code, result = compare(tmp_path, before, after)
    assert code == 0
    assert [row["verdict"] for row in result["rows"]] == ["same", "only in the second file"]


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.json").write_text('{"machine"')
    (tmp_path / "list.json").write_text("[]")
    stall, step = str(RESULTS / "stall.intel_avx512.json"), str(RESULTS / "bench_data.amd_epyc_avx512.json")
    for files, message in (
        ([stall], "after: is not given"),
        ([stall, step], "is of the bench 'stall' and"),
        ([stall, f"{tmp_path}/none.json"], "none.json: cannot be read: No such file"),
        ([stall, f"{tmp_path}/cut.json"], "cut.json: is not JSON"),
        ([stall, f"{tmp_path}/list.json"], "list.json: holds no JSON object"),
        ([stall, stall, "at_least=2"], "at_least: 2.0: must be a share"),
    ):
        assert main(["bench", "compare", *files]) == 2
        assert message in capsys.readouterr().err
