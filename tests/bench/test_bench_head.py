"""``arcdist bench head``: from the command line to the result file."""

import json
from pathlib import Path
from typing import Any

import pytest

from arcdist.bench.cases import METHODS, Case
from arcdist.bench.floors import products_s
from arcdist.bench.gradients import GradientErrors
from arcdist.cli.main import main

TINY = [
    "--quick",
    "--classes",
    "500",
    "--batch",
    "16",
    "--rounds",
    "1",
    "--threads",
    "1",
    "turn_s=0",
    "embedding_dim=32",
]
FEW = ["methods=partial_fc_v2,ours", "gradient_classes=100", "gradient_batch=8"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of a benchmark of two methods, pictures drawn."""
    folder = tmp_path_factory.mktemp("bench")
    arguments = [*TINY, *FEW, "--json", f"{folder}/head.json", f"pictures={folder}/pictures"]
    assert main(["bench", "head", *arguments]) == 0
    assert (folder / "pictures" / "head_b16_r1_tuned.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "head.json").read_text())


def test_there_is_a_row_for_each_method_and_allocator(result: dict[str, Any]) -> None:
    rows = [(row["implementation"], row["case"]["allocator"]) for row in result["rows"]]
    assert rows == [(name, kind) for kind in ("as_started", "tuned") for name in ("partial_fc_v2", "ours")]
    for row in result["rows"]:
        assert row["case"]["num_classes"] == 500
        assert row["p20_s"] <= row["median_s"] <= row["p80_s"]
        parts = [row[part]["median_s"] for part in ("forward", "backward", "update")]
        assert sum(parts) == pytest.approx(row["median_s"])
        assert row["peak_mib"] > row["transient_mib"]
        assert row["baseline"] == "partial_fc_v2"


def test_the_speedup_is_over_the_baseline_of_the_same_case(result: dict[str, Any]) -> None:
    for shipped, ours in (result["rows"][:2], result["rows"][2:]):
        assert shipped["speedup"] == 1
        assert ours["speedup"] == pytest.approx(shipped["median_s"] / ours["median_s"], abs=1e-3)
        assert ours["product_share"] == pytest.approx(ours["products_s"] / ours["median_s"], abs=1e-3)


def test_floors_name_every_form_of_every_product(result: dict[str, Any]) -> None:
    (floors,) = result["floors"]
    fp32 = {row["form"] for row in floors["products"] if row["dtype"] == "fp32"}
    assert fp32 == {"E·Wᵀ", "W·Eᵀ", "P·W", "Qᵀ·W", "Pᵀ·E", "Q·E"}
    assert floors["exp_g_per_s"] > 0
    assert floors["copy_gb_per_s"] > 0


def test_the_products_time_is_theirs_at_the_best_rate_of_each() -> None:
    products = [
        {"product": product, "form": form, "dtype": "fp32", "block": 1, "gflop_per_s": rate}
        for product, form, rate in [
            ("logits", "a", 1.0), ("logits", "b", 2.0), ("embedding gradient", "c", 4.0), ("centers gradient", "d", 4.0)
        ]
    ]  # fmt: skip
    method = METHODS["ours_recomputed"]
    case = Case(num_classes=1000, batch_size=10, embedding_dim=50)
    one = 2 * 1000 * 10 * 50 / 1e9
    expected = one * (2 / 2.0 + 1 / 4.0 + 1 / 4.0)
    assert products_s(method, case, {"products": products}) == pytest.approx(expected)
    assert products_s(METHODS["ours"], case, {"products": products}) == pytest.approx(expected - one / 2.0)
    assert products_s(METHODS["partial_fc_v2"], case, {"products": products}) is None
    assert products_s(method, case, {"products": []}) is None


@pytest.fixture(scope="module")
def gradient_errors() -> GradientErrors:
    """Return the gradients in float64 that methods are held against."""
    return GradientErrors(Case(2003, 16, 64), threads=1)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_gradient_that_its_kind_allows(name: str, gradient_errors: GradientErrors) -> None:
    errors = gradient_errors.measure(name)
    assert set(errors) == {"loss", "embeddings", "centers"}
    assert max(errors.values()) < METHODS[name].error_limit
    if name in ("partial_fc_v2_bf16", "partial_fc_v2_sampled"):  # so that the measure can fail: these are not exact
        assert max(errors.values()) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bench: nothing: must be one of head, step, "),
        (["tail"], "bench: 'tail': must be one of head, step, "),
        (["head", "--classes", "0"], "classes: 0: must be at least 1"),
        (["head", "--classes", "many"], "classes=[many]: Value 'many'"),
        (["head", "methods=theirs"], "methods: 'theirs': must be of partial_fc_v2, "),
        (["head", "allocators=mine"], "allocators: 'mine': must be of as_started, tuned"),
        (["head", "batch=[]"], "batch, ranks and allocators: name one at least"),
        (["head", "batch=7", "ranks=1,2"], "batch: 7: must be a multiple of ranks, 2"),
        (["head", "rounds=-1"], "must not be negative"),
        (["head", "device=tpu"], "device: 'tpu': must be auto, cpu or cuda"),
        (["head", "--clases", "5"], "clases: no such key; did you mean 'classes'?"),
    ],
)
def test_a_wrong_argument_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_two_processes_share_the_head(tmp_path: Path) -> None:
    shared = ["ranks=2", "allocators=as_started", "methods=partial_fc_v2,ours,materialized", *FEW[1:]]
    assert main(["bench", "head", *TINY, *shared, "--json", f"{tmp_path}/head.json"]) == 0
    rows = json.loads((tmp_path / "head.json").read_text())["rows"]
    assert [(row["implementation"], row["case"]["ranks"]) for row in rows] == [("partial_fc_v2", 2), ("ours", 2)]
    assert all(row["median_s"] > 0 for row in rows)


def test_what_does_not_fit_is_left_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = ["--classes", "2000000000", "allocators=as_started", "embedding_dim=8", "turn_s=0", "methods=ours"]
    rest = ["gradient_classes=50", "gradient_batch=4", "batch=2", "--threads", "1", "--json", f"{tmp_path}/head.json"]
    assert main(["bench", "head", *large, *rest]) == 0
    (row,) = json.loads((tmp_path / "head.json").read_text())["rows"]
    assert row["skipped"].startswith("does not fit: needs about ")
    assert "does not fit" in capsys.readouterr().out
