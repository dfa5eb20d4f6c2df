"""A backbone whose weights the ranks share out: steps, runs and checkpoints are those of one process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import losses_of_run, small_config, small_trainer, stop_after_four_steps, weights
from support import run_ranks
from torch import Tensor, nn

from arcdist.backbones.forward import run_blocks
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.heads import PartialFC
from arcdist.margins import Combined
from arcdist.optim import OptimConfig, ScheduleConfig
from arcdist.runtime import collectives
from arcdist.runtime.data_parallel import DataParallelConfig
from arcdist.runtime.fully_sharded import (
    FullyShardedConfig,
    described,
    is_sharded,
    large_layers,
    repeated_blocks,
    whole,
    whole_tensor,
)
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.step import Step, StepConfig

CLASSES, DIM, ROWS, WIDTH = 11, 16, 24, 8


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x)).tanh()


class _Net(nn.Module):
    """A convolution, blocks, and last layers that are larger than a block; the fourth block's weights are frozen."""

    def __init__(self, checkpoint_activations: bool) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))  # has rows for one rank alone
        self.first = nn.Conv2d(3, WIDTH, 1, 4)
        self.blocks = nn.ModuleList(_Block() for _ in range(4))
        self.blocks[3].requires_grad_(False)
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(16 * WIDTH, DIM, bias=False), nn.BatchNorm1d(DIM))

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images).flatten(2).transpose(1, 2) + self.token
        return self.last(run_blocks(self.blocks, x, self.checkpoint_activations))


def _train(
    config: StepConfig,
    steps: int,
    optimizer: str,
    dtype: torch.dtype = torch.float64,
    again: bool = False,
    spoiled: bool = False,
) -> dict[str, Tensor]:
    """Return losses, and the whole weights that a run is about, after some steps on this rank; one may be void."""
    torch.manual_seed(0)
    net: nn.Module = _Net(again).to(dtype)
    world = World(collectives.rank(), collectives.world_size(), 0, torch.device("cpu"))
    if world.size > 1:
        config.fsdp.shard(net, world.device)
        assert all(is_sharded(parameter) for parameter in net.parameters())
    head = PartialFC(DIM, CLASSES, Combined(16.0, m2=0.2), dtype=dtype)
    optim = OptimConfig(optimizer, lr=0.05 if optimizer == "sgd" else 1e-3)
    schedule = ScheduleConfig("cosine").build(2 * steps, 1)
    step = Step(net, head, optim.build(net, head.centers), schedule, optim.lr, 7, config, world, "fp32")
    step.warm_up(16)
    losses = []
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        images = torch.randn(ROWS, 3, 16, 16, generator=generator, dtype=dtype)
        images[-1] *= float("nan") if spoiled and index == 1 else 1.0
        labels = torch.randint(CLASSES, (ROWS,), generator=generator)
        rows = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        losses.append(step(Batch(images[rows], labels[rows])))
    kept = step.trained.state_dict()
    return {"loss": torch.stack(losses)} | {name: whole_tensor(value).clone() for name, value in kept.items()}


def _differences(ranks: list[dict[str, Tensor]], alone: dict[str, Tensor]) -> dict[str, float]:
    return {
        name: max(float((rank[name] - right).double().norm() / right.double().norm()) for rank in ranks)
        for name, right in alone.items()
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"micro_batch_size": 4},
    "clipped": {"micro_batch_size": 4, "clip_norm": 0.1, "ema": 0.9},
    "kept": {"micro_batch_size": 4, "fsdp": FullyShardedConfig(reshard=False)},
}


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("options", _OPTIONS)
def test_steps_are_those_of_one_process(options: str, optimizer: str, world_size: int) -> None:
    config = StepConfig(ROWS, parallel="fsdp", **_OPTIONS[options])
    alone = _train(config, 4, optimizer)
    found = _differences(run_ranks(_train, world_size, config, 4, optimizer), alone)
    assert found.pop("loss") < 1e-6  # a loss is float32
    assert max(found.values()) < 1e-12, found


def test_groups_that_hold_all_weights_each_do_the_same_steps() -> None:
    config = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp", fsdp=FullyShardedConfig(group_size=2))
    found = _differences(run_ranks(_train, 4, config, 4, "sgd"), _train(config, 4, "sgd"))
    assert found.pop("loss") < 1e-6
    assert max(found.values()) < 1e-12, found


def test_activations_may_be_computed_again() -> None:
    config = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp")
    plain, again = (run_ranks(_train, 2, config, 3, "sgd", torch.float64, again) for again in (False, True))
    for one, other in zip(plain, again):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_void_step_changes_no_rank() -> None:
    config = StepConfig(ROWS, micro_batch_size=4, parallel="fsdp", ema=0.9)
    alone = _train(config, 3, "adamw", spoiled=True)
    found = _differences(run_ranks(_train, 3, config, 3, "adamw", torch.float64, False, True), alone)
    assert not alone.pop("loss").isfinite().all()
    assert max(error for name, error in found.items() if name != "loss") < 1e-12, found


def test_compiled_steps_are_those_of_one_that_is_not() -> None:
    plain = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp")
    compiled = replace(plain, compile="default")
    exact = run_ranks(_train, 2, plain, 3, "sgd", torch.float32)[0]
    found = _differences(run_ranks(_train, 2, compiled, 3, "sgd", torch.float32), exact)
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("gradients", ["bf16", "fp16"])
def test_gradients_may_be_sent_narrow(gradients: str) -> None:
    config = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp")
    exact = run_ranks(_train, 2, config, 2, "sgd", torch.float32)[0]
    config.fsdp = FullyShardedConfig(gradients=gradients)
    for rank in run_ranks(_train, 2, config, 2, "sgd", torch.float32):
        found = _differences([rank], exact)
        assert 1e-6 < max(found.values()) < 0.01, found


def test_units_are_blocks_and_what_is_larger() -> None:
    net = _Net(False)
    blocks = repeated_blocks(net)
    assert blocks == list(net.blocks)
    assert large_layers(net, blocks) == [net.last[1]]


def test_what_is_not_sharded_is_whole() -> None:
    net = _Net(False)
    assert whole(net) is described(net) is net


FSDP: dict[str, Any] = {"train": {"parallel": "fsdp"}}
EMA: dict[str, Any] = {"train": {"ema": 0.9}}


def _apart(one: Path, other: Path) -> float:
    before, now = weights(one), weights(other)
    return float((now - before).norm() / before.norm())


@pytest.mark.parametrize("more", [{}, EMA], ids=["plain", "averaged"])
def test_a_run_leaves_the_weights_and_scores_of_one_that_shares_nothing_out(
    tmp_path: Path, faces: Path, more: dict[str, Any]
) -> None:
    scored = {"evaluate": {"sets": [str(faces / "held_out.bin")], "every": 3}}
    rec = faces / "train.rec"
    whole_run = run_ranks(losses_of_run, 2, small_config(tmp_path / "whole", rec, scored, more))
    shared = run_ranks(losses_of_run, 2, small_config(tmp_path / "shared", rec, scored, FSDP, more))
    assert shared[0] == pytest.approx(whole_run[0], rel=1e-5)
    assert _apart(tmp_path / "whole", tmp_path / "shared") < 1e-5
    assert sorted(load_file(tmp_path / "shared" / "model.safetensors")) == sorted(
        load_file(tmp_path / "whole" / "model.safetensors")
    )


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, faces: Path, world_size: int) -> None:
    rec = faces / "train.rec"
    run_ranks(losses_of_run, world_size, small_config(tmp_path / "whole", rec, FSDP, EMA))
    run_ranks(stop_after_four_steps, world_size, small_config(tmp_path / "cut", rec, FSDP, EMA))
    run_ranks(losses_of_run, world_size, small_config(tmp_path / "cut", rec, FSDP, EMA))
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize(
    ("first", "then"),
    [((2, FSDP), (3, FSDP)), ((2, FSDP), (1, FSDP)), ((2, FSDP), (2, {})), ((2, {}), (2, FSDP)), ((1, {}), (3, FSDP))],
    ids=["fewer", "alone", "to ddp", "from ddp", "from one"],
)
def test_a_run_goes_on_in_another_way_or_on_other_ranks(
    tmp_path: Path, faces: Path, first: tuple[int, dict[str, Any]], then: tuple[int, dict[str, Any]]
) -> None:
    rec = faces / "train.rec"
    run_ranks(losses_of_run, 2, small_config(tmp_path / "whole", rec, EMA))
    run_ranks(stop_after_four_steps, first[0], small_config(tmp_path / "cut", rec, EMA, first[1]))
    run_ranks(losses_of_run, then[0], small_config(tmp_path / "cut", rec, EMA, then[1]))
    assert _apart(tmp_path / "whole", tmp_path / "cut") < 1e-5


GROUPS: dict[str, Any] = {"train": {"micro_batch_size": 3, "parallel": "fsdp", "fsdp": {"group_size": 2}}}


def test_groups_write_one_checkpoint_and_are_held_against_each_other(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    few = {"train": {"micro_batch_size": 3}}
    run_ranks(losses_of_run, 1, small_config(tmp_path / "whole", rec, few))
    run_ranks(stop_after_four_steps, 4, small_config(tmp_path / "cut", rec, GROUPS, {"runtime": {"check_every": 1}}))
    run_ranks(losses_of_run, 4, small_config(tmp_path / "cut", rec, GROUPS, {"runtime": {"check_every": 1}}))
    assert _apart(tmp_path / "whole", tmp_path / "cut") < 1e-5


def _begun(config: TrainConfig) -> dict[str, Tensor]:
    """Return what a run begins with, whole."""
    trainer = small_trainer(config)
    before = {name: whole_tensor(tensor).clone() for name, tensor in trainer.step.backbone.state_dict().items()}
    return before | {"centers": whole_tensor(trainer._tensors()["head.centers"])}


def test_a_run_begins_with_the_weights_of_another_and_means_of_its_classes(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    losses_of_run(small_config(tmp_path / "before", rec))
    given = {"init": str(tmp_path / "before"), "head": {"initial": "class_means"}}
    alone = _begun(small_config(tmp_path / "alone", rec, given))
    for rank in run_ranks(_begun, 2, small_config(tmp_path / "shared", rec, given, FSDP)):
        assert rank.keys() == alone.keys()
        for name, right in alone.items():
            torch.testing.assert_close(rank[name], right, rtol=1e-5, atol=1e-6)


def test_a_device_is_looked_at_on_whole_weights(tmp_path: Path, faces: Path) -> None:
    looks = {"runtime": {"replay_every": 2}}
    run_ranks(losses_of_run, 2, small_config(tmp_path / "plain", faces / "train.rec", FSDP))
    run_ranks(losses_of_run, 2, small_config(tmp_path / "looked", faces / "train.rec", FSDP, looks))
    assert torch.equal(weights(tmp_path / "plain"), weights(tmp_path / "looked"))


def _what_it_says(config: TrainConfig) -> str:
    with pytest.raises(ConfigError) as error:
        small_trainer(config)
    return str(error.value)


def test_groups_that_ranks_cannot_be_parted_into_are_refused(tmp_path: Path, faces: Path) -> None:
    groups = {"train": {"parallel": "fsdp", "fsdp": {"group_size": 2}}}
    said = run_ranks(_what_it_says, 3, small_config(tmp_path, faces / "train.rec", groups))
    assert said == ["train.fsdp.group_size: 2: must divide the number of ranks, 3; 0 makes one group of them"] * 3


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (StepConfig(parallel="dp"), "train.parallel: 'dp': must be one of ddp, fsdp"),
        (StepConfig(parallel="fsdp", ddp=DataParallelConfig("bf16")), "train.ddp: is of train.parallel=ddp, and this"),
        (StepConfig(fsdp=FullyShardedConfig(reshard=False)), "train.fsdp: is of train.parallel=fsdp, and this run's"),
        (
            StepConfig(parallel="fsdp", fsdp=FullyShardedConfig(gradients="int8")),
            "train.fsdp.gradients: 'int8': must be one of fp32, bf16, fp16",
        ),
        (
            StepConfig(parallel="fsdp", fsdp=FullyShardedConfig(group_size=1)),
            "train.fsdp.group_size: 1: must be 0 .all ranks. or at least 2",
        ),
    ],
)
def test_what_cannot_be_is_said(config: StepConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config.validate()
