"""A backbone whose weights the ranks share out: steps, runs and checkpoints are those of one process."""

import json
import time
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
from arcdist.checkpoint.commit import Save
from arcdist.data.torch_loader import Batch
from arcdist.errors import ArcdistError, ConfigError
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
    own_parameter,
    repeated_blocks,
    whole,
    whole_tensor,
)
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.replay import check_replay
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
    """Return the largest of all ranks, relative; of what is 0, as a frozen bias, absolute."""
    found = {}
    for name, right in alone.items():
        size = float(right.double().norm()) or 1.0
        found[name] = float(torch.stack([(rank[name] - right).double().norm() / size for rank in ranks]).max())
    return found


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
    assert all(error < 1e-12 for error in found.values()), found


def test_groups_that_hold_all_weights_each_do_the_same_steps() -> None:
    config = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp", fsdp=FullyShardedConfig(group_size=2))
    found = _differences(run_ranks(_train, 4, config, 4, "sgd"), _train(config, 4, "sgd"))
    assert found.pop("loss") < 1e-6
    assert all(error < 1e-12 for error in found.values()), found


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
    del found["loss"]
    assert all(error < 1e-12 for error in found.values()), found


def test_compiled_steps_are_those_of_one_that_is_not() -> None:
    plain = StepConfig(ROWS, micro_batch_size=6, parallel="fsdp")
    compiled = replace(plain, compile="default")
    exact = run_ranks(_train, 2, plain, 3, "sgd", torch.float32)[0]
    found = _differences(run_ranks(_train, 2, compiled, 3, "sgd", torch.float32), exact)
    assert all(error < 1e-4 for error in found.values()), found


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
    keys = [sorted(load_file(tmp_path / name / "model.safetensors")) for name in ("whole", "shared")]
    assert keys[0] == keys[1]
    found = [_accuracies(tmp_path / name) for name in ("whole", "shared")]
    assert found[0] == pytest.approx(found[1], abs=0.051)  # two of the 40 pairs
    assert len(found[0]) == 2


def _accuracies(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["held_out/accuracy"] for record in records if "held_out/accuracy" in record]


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


def test_groups_write_one_checkpoint(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    few = {"train": {"micro_batch_size": 3}}
    run_ranks(losses_of_run, 1, small_config(tmp_path / "whole", rec, few))
    run_ranks(stop_after_four_steps, 4, small_config(tmp_path / "cut", rec, GROUPS, {"runtime": {"check_every": 1}}))
    run_ranks(losses_of_run, 4, small_config(tmp_path / "cut", rec, GROUPS, {"runtime": {"check_every": 1}}))
    assert _apart(tmp_path / "whole", tmp_path / "cut") < 1e-5


def _said_of_a_drift(config: TrainConfig) -> str:
    trainer = small_trainer(config)
    if collectives.rank() == 3:
        own_parameter(next(trainer.step.backbone.parameters())).data.add_(1)
    try:
        trainer._check_agreement()
    except ArcdistError as error:
        return str(error)
    return ""


def test_groups_are_held_against_each_other(tmp_path: Path, faces: Path) -> None:
    said = run_ranks(_said_of_a_drift, 4, small_config(tmp_path, faces / "train.rec", GROUPS))
    assert all("backbone.conv1.weight" in one for one in said)


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


def _looked_at(config: TrainConfig) -> list[bool]:
    """Do a run, and return of each net whose device was looked at whether it was whole."""
    seen: list[bool] = []

    def look(backbone: nn.Module, *others: Any) -> None:
        seen.append(not any(map(is_sharded, backbone.parameters())))
        check_replay(backbone, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arcdist.train.trainer.check_replay", look)
        small_trainer(config).run()
    return seen


def test_a_device_is_looked_at_on_whole_weights(tmp_path: Path, faces: Path) -> None:
    looks = {"runtime": {"replay_every": 2}}
    run_ranks(losses_of_run, 2, small_config(tmp_path / "plain", faces / "train.rec", FSDP))
    seen = run_ranks(_looked_at, 2, small_config(tmp_path / "looked", faces / "train.rec", FSDP, looks))
    assert seen == [[True] * 3] * 2
    assert torch.equal(weights(tmp_path / "plain"), weights(tmp_path / "looked"))


def _fault_of_a_save(config: TrainConfig) -> tuple[str | None, float]:
    """Save where rank 0 has no memory for the whole weights; return what this rank hears of it, and after how long."""
    trainer = small_trainer(config)
    with pytest.MonkeyPatch.context() as patch:
        if collectives.rank() == 0:
            patch.setattr(Save, "_make_room", lambda *_: ("cannot be gathered (can't allocate memory)", {}))
        start = time.monotonic()
        trainer._save(wait=True)
        return trainer.checkpoints.wait(), time.monotonic() - start


def test_a_rank_without_memory_for_all_weights_is_not_waited_for(tmp_path: Path, faces: Path) -> None:
    for fault, seconds in run_ranks(_fault_of_a_save, 2, small_config(tmp_path, faces / "train.rec", FSDP)):
        assert fault
        assert fault.endswith("step-000000000: cannot be gathered (can't allocate memory)")
        assert seconds < 30


def _whole_net() -> list[bool]:
    """Call a whole copy on rank 0 alone, and return its parts' modes."""
    net = _Net(False)
    net.last[2].eval()
    FullyShardedConfig().shard(net, torch.device("cpu"))
    plain = whole(net)
    if collectives.rank() == 0:
        plain(torch.zeros(3, 3, 16, 16))
    return [plain.training, plain.last[2].training]


def test_a_whole_copy_is_one_ranks_own_and_leaves_parts_in_their_modes() -> None:
    assert run_ranks(_whole_net, 2) == [[True, False]] * 2


def _alone_s(config: TrainConfig) -> float:
    """Return the seconds that this rank's reports count as its own, of a run in which rank 0 is late with its steps."""
    trainer = small_trainer(config)
    late = trainer.step.head.begin_step

    def begin_step(*arguments: Any) -> None:
        time.sleep(0.2 * (collectives.rank() == 0))
        late(*arguments)

    trainer.step.head.begin_step = begin_step  # ty: ignore[invalid-assignment]
    for batch in trainer._batches():
        trainer.step(batch)
        trainer.step.stragglers.waited(0.001)
        if trainer.step.count == 4:
            break
    return trainer.step.stragglers._alone.read()


def test_a_rank_that_waits_for_another_in_its_forward_pass_is_not_taken_for_slow(tmp_path: Path, faces: Path) -> None:
    assert max(run_ranks(_alone_s, 2, small_config(tmp_path, faces / "train.rec", FSDP))) < 0.1


def _what_it_says(config: TrainConfig) -> str:
    with pytest.raises(ConfigError) as error:
        small_trainer(config)
    return str(error.value)


def test_groups_that_ranks_cannot_be_parted_into_are_refused(tmp_path: Path, faces: Path) -> None:
    groups = {"train": {"parallel": "fsdp", "fsdp": {"group_size": 2}}}
    said = run_ranks(_what_it_says, 3, small_config(tmp_path, faces / "train.rec", groups))
    assert said == ["train.fsdp.group_size: 2: must divide the number of ranks, 3; 0 makes one group of them"] * 3
    assert "must divide the number of ranks, 1" in _what_it_says(small_config(tmp_path, faces / "train.rec", groups))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (StepConfig(parallel="dp"), "train.parallel: 'dp': must be one of ddp, fsdp"),
        (
            StepConfig(parallel="fsdp", ddp=DataParallelConfig("bf16")),
            "train.ddp: its keys are for train.parallel=ddp, and this run's is fsdp, whose own are ",
        ),
        (StepConfig(fsdp=FullyShardedConfig(reshard=False)), "train.fsdp: its keys are for train.parallel=fsdp, and"),
        (StepConfig(parallel="fsdp", compile="max-autotune"), "train.compile: 'max-autotune': cannot be had with"),
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
