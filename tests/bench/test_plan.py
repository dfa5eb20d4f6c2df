"""``arcdist plan``: what it computes is what a run does."""

import json
from pathlib import Path

import pytest
import torch
from support import run_ranks

from arcdist.backbones import BackboneConfig
from arcdist.bench.plan import Cluster, Plan
from arcdist.bench.plan_machine import GPUS
from arcdist.bench.plan_measured import machine_from_bench
from arcdist.bench.plan_memory import memory
from arcdist.bench.plan_network import BackboneCost, backbone_cost, bytes_at
from arcdist.bench.plan_probe import CollectiveBytes, PlanCase
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.plan_time import collective_s, collectives
from arcdist.cli.main import main
from arcdist.errors import DataError
from arcdist.runtime.world import World

_KIND = {"allgather_base": "all-gather", "reduce_scatter_base": "reduce-scatter", "allreduce": "all-reduce"}


def test_operations_are_those_of_the_published_network() -> None:
    cost = backbone_cost(BackboneConfig("r18"), "fp32")
    assert cost.parameters == 24_025_600 - 512  # the last layer's scale is not trained
    assert cost.flops == pytest.approx(6 * 2.62e9, rel=0.02)  # 2.6 G multiplications and additions forward


def test_narrow_activations_take_about_half_the_memory() -> None:
    wide, narrow = (backbone_cost(BackboneConfig("small_thin"), precision).kept[1] for precision in ("fp32", "bf16"))
    assert 0.45 < narrow / wide < 0.65


def test_memory_counted_on_shapes_is_what_real_tensors_take() -> None:
    rows, model = 4, BackboneConfig("mbf").build()
    cost = backbone_cost(BackboneConfig("mbf"), "fp32")
    saved: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.rand(rows, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(images)
    assert bytes_at([cost.kept], rows) == pytest.approx(sum(saved.values()) - images.nbytes, rel=0.01)


def test_activations_computed_again_take_less_memory_and_a_third_more_work() -> None:
    plain, again = (
        backbone_cost(BackboneConfig("tiny", checkpoint_activations=checkpoint), "fp32") for checkpoint in (False, True)
    )
    assert bytes_at(again.backward, 64) < 0.8 * bytes_at(plain.backward, 64)
    assert plain.recomputed == 1
    assert plain.flops == again.flops
    assert 1.2 < again.recomputed < 1.34


@pytest.fixture
def plan() -> Plan:
    """Return a plan of an R50 on eight GPUs."""
    line = (58.6 * 2**20, 33.9 * 2**20)
    cost = BackboneCost(43_590_848, 50_000, 20_000, 37.8e9, 1.0, 205 * 2**20, (line,), line, (line,), (line,))
    return Plan(Sizes(128, 8, 10_000_000, 512), cost, Cluster(), GPUS["h100"], "r50")


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
    assert plan.with_(ranks=1).step_time()["head's communication"] == 0


def test_a_hundred_million_classes_fit_with_bf16_and_a_billion_on_more_gpus(plan: Plan) -> None:
    many = plan.with_(num_classes=100_000_000)
    # 12.5 M centers a GPU: 51.2 GB for them and their momentum in float32, half in bfloat16.
    assert memory(many.sizes, many.cost)["centers"] == 12_500_000 * 512 * 4
    assert many.ways()["head.dtype=bf16"].memory_bytes < many.memory_bytes - 25.6e9 + 1e9
    billion = plan.with_(num_classes=1_000_000_000)
    assert not billion.fits
    advice = billion.advice()
    ranks = int(advice[0].removeprefix("gpus=").partition(" ")[0])
    assert billion.with_(ranks=ranks).fits
    assert not billion.with_(ranks=ranks // 2).fits
    assert 512 * 8 * 1e9 / ranks < 80e9  # centers and momentum alone


def test_groups_pay_where_gathering_everyones_rows_costs_more_than_a_shard(plan: Plan) -> None:
    few = plan.with_(ranks=4096, num_classes=85_742)
    group = few.best_group()
    assert group
    grouped = few.with_(group_size=group)
    assert grouped.images_per_s > 1.05 * few.images_per_s
    sent = {one.what: one for one in collectives(grouped.sizes, grouped.cost)}
    assert sent["centers' gradient"].bytes == -(-85_742 // group) * 512 * 4
    assert sent["embeddings and labels"].bytes == 128 * group * (512 * 4 + 8)
    assert plan.with_(ranks=8).best_group() == 0  # a shard of 2.6 GB a step would cross the network


def test_an_all_reduce_takes_twice_a_gather(plan: Plan) -> None:
    sent = {one.what: one for one in collectives(plan.sizes, plan.cost)}
    reduced = collective_s(sent["backbone's gradients"], plan.machine, plan.cluster.links)
    assert reduced == pytest.approx(2 * 7 / 8 * 43_590_848 * 4 / 450e9 + 10e-6)


def _counted(case: PlanCase, rank_count: int) -> dict[str, int]:
    world = World(torch.distributed.get_rank(), rank_count, 0, torch.device("cpu"))
    step = case.step(world)
    batches = case.batches(world)
    for _ in range(2):  # DDP arranges its buckets after the first
        step(next(batches))
    with CollectiveBytes() as counter:
        step(next(batches))
    return counter.bytes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sample_rate": 0.3, "rounds": 2},
        {"optimizer": "adamw"},
        {"group_size": 1},
        {"gradients": "bf16"},
        {"parallel": "fsdp"},
        {"parallel": "fsdp", "rounds": 2, "backbone": "mbf", "gradients": "bf16"},
    ],
    ids=["plain", "sampled", "adamw", "groups", "narrow", "shared out", "shared out in blocks"],
)
def test_a_step_communicates_as_many_bytes_as_the_plan_says(options: dict[str, float]) -> None:
    case = PlanCase(**{"backbone": "tiny", "num_classes": 101, "batch_size": 16, "ranks": 2} | options)
    sizes = Sizes.of(case.config(), 2, 101, "fp32", "cpu")
    expected: dict[str, int] = {}
    for one in collectives(sizes, backbone_cost(case.config().backbone, "fp32")):
        expected[one.kind] = expected.get(one.kind, 0) + one.bytes
    for counted in run_ranks(_counted, 2, case, 2):
        assert {_KIND[name]: count for name, count in counted.items()} == expected


def test_a_file_of_bench_step_is_a_machine(tmp_path: Path) -> None:
    """Its rates are those of the file: a step of the same sizes is planned to take what it took there."""
    products = [
        {"product": product, "form": "", "dtype": "fp32", "block": 1024, "gflop_per_s": 100.0}
        for product in ("logits", "embedding gradient", "centers gradient")
    ]
    case = {"backbone": "small_thin", "num_classes": 1000, "batch_size": 32, "embedding_dim": 128, "ranks": 1}
    content = {
        "bench": "step",
        "machine": {"cpu": "some", "threads": 2, "memory_mib": 24_000},
        "floors": [{"products": products, "copy_gb_per_s": 10.0, "exp_g_per_s": 1.0}],
        "rows": [{"case": case, "implementation": "ours_fp32", "median_s": 0.5}],
    }
    place = tmp_path / "step.json"
    place.write_text(json.dumps(content))
    machine = machine_from_bench(place)
    cost = backbone_cost(BackboneConfig("small_thin", 128), "fp32")
    sizes = Sizes(32, 1, 1000, 128, precision="fp32", products="fp32", device="cpu")
    step = Plan(sizes, cost, Cluster(gpus=1), machine, "small_thin")
    assert step.images_per_s == pytest.approx(32 / 0.5)
    place.write_text(json.dumps(content | {"bench": "head"}))
    with pytest.raises(DataError, match="a machine is told by bench plan or bench step"):
        machine_from_bench(place)


def test_the_verb_leaves_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, picture = f"{tmp_path}/plan.json", tmp_path / "plan.png"
    few = ["backbone=small_thin", "gpus=1", "gpu=v100", "classes=100000000"]
    assert main(["plan", *few, f"picture={picture}", "--json", place]) == 0
    result = json.loads(Path(place).read_text())
    assert not result["fits"]
    assert "does not fit" in capsys.readouterr().out
    assert [row["gpus"] for row in result["scaling"]] == [2**power for power in range(13)]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu=abacus"], "gpu: 'abacus': must be one of h200, "),
        (["machine=/nowhere.json"], "/nowhere.json: cannot be read: "),
        (["network_gb_per_s=0"], "network_gb_per_s: 0.0: must be above 0"),
        (["--json"], "--json: needs a path"),
        (["head.group_size=3"], "head.group_size: 3: must divide the number of ranks, 8"),
        (["train.global_batch_size=9"], "train.global_batch_size: 9 rows cannot be shared out over 8 ranks"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) > 0
    assert message in capsys.readouterr().err
