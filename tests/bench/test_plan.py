"""``arcdist plan``: what it computes is what a run does."""

import json
from pathlib import Path

import pytest

from arcdist.backbones import BackboneConfig
from arcdist.bench.plan import BackboneCost, Cluster, Plan, Sizes, backbone_cost, memory, step_time
from arcdist.cli.main import main


def test_operations_are_those_of_the_published_network() -> None:
    cost = backbone_cost(BackboneConfig("r18"), "fp32")
    assert cost.parameters == 24_025_600
    assert cost.flops == pytest.approx(6 * 2.62e9, rel=0.02)  # 2.6 G multiplications and additions forward


def test_narrow_activations_take_about_half_the_memory() -> None:
    wide, narrow = (backbone_cost(BackboneConfig("small_thin"), precision).kept_bytes for precision in ("fp32", "bf16"))
    assert 0.45 < narrow / wide < 0.65


@pytest.fixture
def plan() -> Plan:
    """Return a plan of an R50 on eight GPUs."""
    return Plan(Sizes(128, 8, 10_000_000, 512), BackboneCost(43_590_848, 20_000, 37.9e9, 18 * 2**20), Cluster())


def test_the_largest_batch_is_the_last_that_fits(plan: Plan) -> None:
    rows = plan.largest_rows()
    assert plan.with_(rows=rows).fits
    assert not plan.with_(rows=rows + 1).fits
    assert plan.with_(num_classes=10_000_000_000).largest_rows() == 0


def test_narrow_centers_and_fewer_of_them_make_a_step_smaller_and_faster(plan: Plan) -> None:
    ways = plan.ways()
    assert ways["head.dtype=bf16"].memory_bytes < plan.memory_bytes
    assert ways["head.sample_rate=0.1"].images_per_s > plan.images_per_s
    assert memory(plan.sizes, plan.cost)["centers"] == 10_000_000 / 8 * 512 * 4
    alone = plan.with_(ranks=1)
    assert step_time(alone.sizes, alone.cost, plan.cluster)["head's communication"] == 0


def test_the_verb_leaves_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = f"{tmp_path}/plan.json"
    assert main(["plan", "backbone=small_thin", "gpus=1", "gpu=v100", "classes=100000000", "--json", place]) == 0
    result = json.loads(Path(place).read_text())
    assert not result["fits"]
    assert "does not fit" in capsys.readouterr().out
    assert [row["gpus"] for row in result["scaling"]] == [1, 8, 64, 512, 4096]


def test_an_unknown_gpu_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpu=abacus"]) == 2
    assert "gpu: 'abacus': must be one of h200, " in capsys.readouterr().err
