"""``arcdist bench parts``: what is timed is right, what is wrong is not timed, and the result says so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import run_ranks

from arcdist.bench import parts
from arcdist.bench.part import Part, PartCase, PartMethod
from arcdist.bench.part_optimizer import OPTIMIZER_PART, weights_bytes
from arcdist.cli.main import main

TINY = ["net=tiny", "backbones=tiny", "batch=4", "rows=4", "rounds=1", "turn_s=0", "--threads", "1", "device=cpu"]


def _shares_of_limit(case: PartCase) -> dict[str, float]:
    methods = parts.PARTS[case.part].methods(case.what)
    return {method.name: method.build(case).error() / method.error_limit for method in methods}


@pytest.mark.parametrize("what", parts.COLLECTIVES)
def test_three_ranks_get_what_they_have_to(what: str) -> None:
    case = PartCase("communication", what, "tiny", 4, "cpu", 3)
    for errors in run_ranks(_shares_of_limit, 3, case):
        assert all(error < 1 for error in errors.values()), errors


@pytest.mark.parametrize("what", ["sgd", "adamw"])
def test_an_update_is_held_against_the_papers(what: str) -> None:
    case = PartCase("optimizer", what, "tiny", 0, "cpu")
    assert all(error < 1 for error in _shares_of_limit(case).values())
    bytes_moved = OPTIMIZER_PART.floor(
        case, OPTIMIZER_PART.method(what, "loop"), {"in_place_gb_per_s": 10.0, "copy_gb_per_s": 5.0}
    )
    assert bytes_moved["floor_seconds"] == pytest.approx({"sgd": 5, "adamw": 7}[what] * weights_bytes(case) / 1e10)


def _twice_as_far(case: PartCase) -> object:
    right = OPTIMIZER_PART.method(case.what, "loop").build(case)
    step = right.step
    right.step = lambda: (step(), step())  # ty: ignore[invalid-assignment]
    return right


def test_what_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = OPTIMIZER_PART.method("sgd", "loop")
    wrong: PartMethod = replace(loop, name="wrong", build=_twice_as_far)  # ty: ignore[invalid-argument-type]
    both = Part(lambda what: (loop, wrong), OPTIMIZER_PART.moved, OPTIMIZER_PART.operations)
    monkeypatch.setitem(parts.PARTS, "optimizer", both)
    monkeypatch.setattr(parts, "Workers", _InThisProcess)
    monkeypatch.setattr("arcdist.bench.timing.Workers", _InThisProcess)
    threads = torch.get_num_threads()
    config = parts.PartsConfig(parts=["optimizer"], net="tiny", rounds=1, turn_s=0, threads=threads, device="cpu")
    right, refused = parts.bench_parts(config, lambda so_far: None)["rows"][:2]
    assert right["speedup"] == 1
    assert refused["skipped"].startswith("not timed: an error of ")
    assert "median_s" not in refused


class _InThisProcess:
    """As ``Workers``, without a process: it knows what a test has put in place."""

    def __init__(self, make: type, *arguments: object, ranks: int = 1) -> None:
        self._held = make(*arguments)

    def ask(self, method: str, *arguments: object) -> list[object]:
        return [getattr(self._held, method)(*arguments)]

    def close(self) -> None:
        """Nothing to end."""


def test_a_row_has_time_floor_and_baseline_and_can_be_compared(tmp_path: Path) -> None:
    file = tmp_path / "parts.json"
    assert main(["bench", "parts", *TINY, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert {"machine", "versions", "commit", "date"} <= result.keys()
    rows = {(row["case"]["what"], row["implementation"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) >= 2 + 2 * 3 + 7
    ours, plain = rows["all_gather", "ours_together"], rows["all_gather", "one_after_the_other"]
    assert ours["speedup"] == pytest.approx(plain["median_s"] / ours["median_s"], abs=1e-3)
    assert ours["moved_bytes"] == 2 * 2 * 4 * (512 * 4 + 8)  # read and written, by two ranks, rows, a row and its label
    passes = rows["tiny", "ours_fp32"]
    assert passes["operations"] / passes["floor_seconds"] == pytest.approx(
        1e9 * max(row["gflop_per_s"] for row in result["floors"]["cpu"]["products"] if row["dtype"] == "fp32")
    )
    assert main(["bench", "compare", str(file), str(file)]) == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("parts=heads", "parts: 'heads': must be of backbone, optimizer, communication"),
        ("net=r51", "net: 'r51': must be of "),
        ("batch=1", "and batch not 1"),
        ("ranks=1", "and ranks 2"),
    ],
)
def test_a_wrong_argument_is_said(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "parts", argument]) == 2
    assert message in capsys.readouterr().err
