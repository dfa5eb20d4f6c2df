"""One optimizer step: what the number of ranks and of micro-batches must not change."""

from dataclasses import replace

import pytest
import torch
from support import run_ranks
from torch import Tensor, nn
from torch._dynamo.utils import counters

from arcdist.backbones import BackboneConfig
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.heads import PartialFC
from arcdist.margins import AdaFace, Combined
from arcdist.optim import OptimConfig, ScheduleConfig
from arcdist.runtime import collectives
from arcdist.runtime.data_parallel import DataParallelConfig
from arcdist.runtime.world import World
from arcdist.train.config import LoopConfig, TrainConfig
from arcdist.train.step import Step, StepConfig

CLASSES, DIM, ROWS = 11, 8, 24


class _Net(nn.Module):
    """Three convolutions, with BatchNorm and dropout or without either."""

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 6), (6, 8), (8, 8)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs) if normalize else nn.Identity()]
            layers += [nn.PReLU(outputs)]
        self.body = nn.Sequential(*layers, nn.Dropout(0.2 if normalize else 0.0), nn.Flatten(), nn.Linear(8 * 4, DIM))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def _train(
    config: StepConfig,
    steps: int,
    normalize: bool,
    optimizer: str = "sgd",
    fused: bool = False,
    sample_rate: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return losses, the weights of backbone and centers, and the running statistics after some steps."""
    torch.manual_seed(0)
    net = _Net(normalize).to(dtype)
    head = PartialFC(DIM, CLASSES, Combined(16.0, m2=0.2), sample_rate, dtype=dtype)
    optim = OptimConfig(optimizer, lr=0.05 if optimizer == "sgd" else 1e-3)
    world = World(collectives.rank(), collectives.world_size(), 0, torch.device("cpu"))
    schedule = ScheduleConfig("cosine").build(2 * steps, 1)
    built = optim.build(net, head.centers)
    update = optim.center_update(built, head.centers, head.classes.start, 7) if fused else None
    step = Step(net, head, built, schedule, optim.lr, 7, config, world, center_update=update)
    step.warm_up(16) if dtype == torch.float32 else None
    losses = []
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        images = torch.randn(ROWS, 3, 16, 16, generator=generator).to(dtype)
        labels = torch.randint(CLASSES, (ROWS,), generator=generator)
        rows = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        losses.append(step(Batch(images[rows], labels[rows])))
    step.settle()
    state = {name: value.clone() for name, value in net.state_dict().items() if value.is_floating_point()}
    return {"loss": torch.stack(losses), **state, "centers": head.centers.detach()}


def _assert_equal(ranks: list[dict[str, Tensor]], alone: dict[str, Tensor], tolerance: float) -> None:
    for name, expected in alone.items():
        parts = [rank[name] for rank in ranks]
        if name == "centers":
            parts = [torch.cat(parts)]
        for part in parts:
            difference = float((part - expected).norm() / expected.norm())
            assert difference <= tolerance, f"{name}: {difference:.1e}"


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ten_steps_with_batchnorm_and_dropout_do_not_depend_on_world_size(world_size: int) -> None:
    config = StepConfig(ROWS, micro_batch_size=2, precision="fp32")
    alone = _train(config, 10, True)
    _assert_equal(run_ranks(_train, world_size, config, 10, True), alone, 3e-6)


def test_accumulating_micro_batches_is_the_large_batch() -> None:
    whole = _train(StepConfig(ROWS, precision="fp32"), 5, False)
    parts = _train(StepConfig(ROWS, micro_batch_size=6, precision="fp32"), 5, False)
    _assert_equal([parts], whole, 1e-6)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("static_graph", [False, True])
def test_neither_buckets_nor_a_static_graph_change_what_is_learned(world_size: int, static_graph: bool) -> None:
    ddp = DataParallelConfig(bucket_mib=0.001, static_graph=static_graph)
    config = StepConfig(ROWS, micro_batch_size=4, precision="fp32", ddp=ddp)
    alone = _train(config, 6, True)
    _assert_equal(run_ranks(_train, world_size, config, 6, True), alone, 3e-6)


@pytest.mark.parametrize("gradients", ["bf16", "fp16"])
def test_narrow_gradients_stay_alike_on_all_ranks_and_close_to_the_wide_ones(gradients: str) -> None:
    config = StepConfig(ROWS, micro_batch_size=6, precision="fp32", ddp=DataParallelConfig(gradients))
    wide = _train(StepConfig(ROWS, micro_batch_size=6, precision="fp32"), 6, False)
    first, second = run_ranks(_train, 2, config, 6, False)
    weights = [name for name in wide if name.startswith("body")]
    assert all(torch.equal(first[name], second[name]) for name in weights)
    assert not all(torch.equal(first[name], wide[name]) for name in weights)
    torch.testing.assert_close(first["loss"], wide["loss"], rtol=1e-3, atol=0)


def test_a_compiled_backbone_learns_the_same_from_one_compilation() -> None:
    config = StepConfig(ROWS, micro_batch_size=8, precision="fp32")  # three rounds, each by the same code
    eager = _train(config, 4, False)
    counters.clear()
    _assert_equal([_train(replace(config, compile="default"), 4, False)], eager, 1e-5)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiled_backbone_does_not_depend_on_world_size() -> None:
    config = StepConfig(ROWS, micro_batch_size=6, precision="fp32", compile="default")
    alone = _train(config, 3, False)
    _assert_equal(run_ranks(_train, 2, config, 3, False), alone, 1e-5)


def test_what_is_not_compiled_so_or_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="train.compile: 'fast': must be one of none, default"):
        StepConfig(compile="fast").validate()
    with pytest.raises(ConfigError, match="train.compile: cannot be had with backbone.checkpoint_activations"):
        TrainConfig(
            backbone=BackboneConfig(checkpoint_activations=True),
            train=LoopConfig(compile="default"),
        ).validate()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="'no-such-compiler' is not one of this machine; install g"):
        _train(StepConfig(ROWS, precision="fp32", compile="default"), 1, False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_clipped_step_does_not_depend_on_world_size(optimizer: str) -> None:
    config = StepConfig(ROWS, micro_batch_size=12, precision="fp32", clip_norm=0.5)
    alone = _train(config, 4, False, optimizer)
    free = _train(StepConfig(ROWS, micro_batch_size=12, precision="fp32"), 4, False, optimizer)
    assert not torch.allclose(alone["body.0.weight"], free["body.0.weight"], rtol=1e-4)
    _assert_equal(run_ranks(_train, 2, config, 4, False, optimizer), alone, 2e-6)


@pytest.mark.parametrize(("optimizer", "sample_rate"), [("sgd", 1.0), ("sgd", 0.3), ("adamw", 1.0)])
@pytest.mark.parametrize("world_size", [1, 3])
def test_centers_that_change_block_by_block_get_the_weights_of_the_separate_optimizer(
    world_size: int, optimizer: str, sample_rate: float
) -> None:
    # Two rounds or six; at a rate below 1, sgd's undrawn centers move on as they do in the separate optimizer.
    config = StepConfig(ROWS, micro_batch_size=4, precision="fp32", clip_norm=5.0)
    arguments = (config, 8, False, optimizer)
    separate = _train(*arguments, False, sample_rate, torch.float64)
    fused = run_ranks(_train, world_size, *arguments, True, sample_rate, torch.float64)
    _assert_equal(fused, {"loss": separate.pop("loss")}, 1e-6)  # the sum over rounds is kept in float32
    _assert_equal(fused, separate, 1e-11)


def test_bf16_follows_the_float32_losses() -> None:
    full = _train(StepConfig(ROWS, micro_batch_size=12, precision="fp32"), 6, False)["loss"]
    for rank in run_ranks(_train, 2, StepConfig(ROWS, micro_batch_size=12, precision="bf16"), 6, False):
        torch.testing.assert_close(rank["loss"], full, rtol=0.02, atol=0)


def test_fp16_begins_with_the_float32_loss_and_trains_once_its_scale_has_settled() -> None:
    full = _train(StepConfig(ROWS, micro_batch_size=12, precision="fp32"), 1, False)["loss"]
    for rank in run_ranks(_train, 2, StepConfig(ROWS, micro_batch_size=12, precision="fp16"), 12, False):
        torch.testing.assert_close(rank["loss"][:1], full, rtol=0.01, atol=0)
        assert rank["loss"].isfinite().all()
        assert not torch.equal(rank["loss"][-1], rank["loss"][0])


def test_an_infinite_gradient_of_one_shard_skips_the_step_on_every_rank() -> None:
    assert run_ranks(_overflow, 2, 65536.0, 1) == [([False], True)] * 2


def test_fp16_whose_scale_has_fallen_below_1_makes_void_steps() -> None:
    assert run_ranks(_overflow, 2, 2.0, 4) == [([False, False, True, True], True)] * 2


def _overflow(scale: float, steps: int) -> tuple[list[bool], bool]:
    """Do steps whose gradient is infinite on rank 1 alone, from a scale on.

    Return which of them were void, and whether this rank's weights are as they were.
    """
    torch.manual_seed(0)
    net, head = _Net(False), PartialFC(DIM, CLASSES)
    world = World(collectives.rank(), 2, 0, torch.device("cpu"))
    optim = OptimConfig(lr=0.1)
    config = StepConfig(ROWS, precision="fp16")
    step = Step(
        net, head, optim.build(net, head.centers), ScheduleConfig("constant").build(9, 1), 0.1, 0, config, world
    )
    if world.rank == 1:
        head.centers.register_hook(lambda gradient: gradient * torch.inf)
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": scale})
    before = [parameter.detach().clone() for parameter in [*net.parameters(), head.centers]]
    for _ in range(steps):
        step(Batch(torch.randn(ROWS // 2, 3, 16, 16), torch.randint(CLASSES, (ROWS // 2,))))
    same = all(torch.equal(a, b) for a, b in zip(before, [*net.parameters(), head.centers]))
    return [verdict.skipped for verdict in step.verdicts.read()], same


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_that_is_no_number_on_one_rank_changes_nothing_on_any(fused: bool) -> None:
    assert run_ranks(_poisoned, 2, fused) == [(True, True, True)] * 2


def _poisoned(fused: bool) -> tuple[bool, bool, bool]:
    """Return whether a step with NaN in rank 1's images was void, and whether the next one was not."""
    torch.manual_seed(0)
    net, head = _Net(True), PartialFC(DIM, CLASSES, AdaFace(16.0))
    world = World(collectives.rank(), 2, 0, torch.device("cpu"))
    optim = OptimConfig("adamw", lr=0.01)
    built = optim.build(net, head.centers)
    update = optim.center_update(built, head.centers, head.classes.start, 7) if fused else None
    schedule = ScheduleConfig("constant").build(9, 1)
    step = Step(net, head, built, schedule, 0.01, 0, StepConfig(ROWS, precision="fp32"), world, center_update=update)
    images, labels = torch.randn(ROWS // 2, 3, 16, 16), torch.randint(CLASSES, (ROWS // 2,))

    def state() -> list[Tensor]:
        moments = [value for one in built.state.values() for value in one.values()]
        kept = [*net.state_dict().values(), *head.state_dict().values(), *moments]
        return [tensor.clone() for tensor in kept if tensor.is_floating_point()]

    before = state()
    step(Batch(torch.full_like(images, torch.nan) if world.rank == 1 else images, labels))
    after = state()
    step(Batch(images, labels))
    first, second = step.verdicts.read()
    same = all(torch.equal(a, b) for a, b in zip(before, after))
    moved = not any(torch.equal(a, b) for a, b in zip(after[:3], state()[:3]))
    return same, first.skipped and not second.skipped, moved


@pytest.mark.parametrize(
    ("micro", "world_size", "fitting"), [(8, 2, "1, 3"), (0, 5, "1, 2, 3, 4, 6, 8, 12, 24"), (24, 2, "1")]
)
def test_a_batch_that_the_ranks_cannot_share_names_the_numbers_of_ranks_that_can(micro, world_size, fitting) -> None:
    with pytest.raises(ConfigError, match=f"numbers of ranks that can: {fitting}$"):
        StepConfig(ROWS, micro).micro_batch(world_size)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"global_batch_size": 0}, "global_batch_size"),
        ({"micro_batch_size": 7}, "micro_batch_size"),
        ({"precision": "int4"}, "precision"),
        ({"clip_norm": -1}, "clip_norm"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(values: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"train.{key}"):
        StepConfig(**values).validate()
