"""A device that computes wrong numbers now and then."""

from pathlib import Path

import pytest
import torch
from small_runs import disturb, small_config, small_trainer, weights
from support import run_ranks
from torch import Tensor, nn

from arcdist.backbones import create_backbone
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.world import RuntimeConfig
from arcdist.train.config import TrainConfig
from arcdist.train.replay import ReplayError, check_replay


def _flip_a_bit_of_the_next_gradient(weight: nn.Parameter) -> None:
    """Let the lowest bit of one number of a weight's next gradient be another."""

    def flip(gradient: Tensor) -> Tensor:
        handle.remove()
        flipped = gradient.clone(memory_format=torch.preserve_format)
        flipped.view(torch.int32)[0] ^= 1
        return flipped

    handle = weight.register_hook(flip)


def _run(config: TrainConfig, broken: bool) -> str:
    """Do a run in which a gradient of rank 1 has a wrong bit after step 3; return what it said."""
    trainer = small_trainer(config)

    def break_it(step: int, batch: Batch) -> Batch:
        if step == 4 and broken and collectives.rank() == 1:
            trainer.step.optimizer.register_step_post_hook(
                lambda *_: _flip_a_bit_of_the_next_gradient(trainer.step.backbone.get_parameter("bn1.weight"))
            )
        return batch

    disturb(trainer, break_it)
    try:
        trainer.run()
    except ReplayError as error:
        return str(error)
    return ""


def test_a_gradient_with_a_wrong_bit_ends_the_run_on_every_rank_before_it_is_saved(tmp_path: Path, faces: Path) -> None:
    config = small_config(tmp_path, faces / "train.rec", {"runtime": {"replay_every": 2}})
    said = run_ranks(_run, 3, config, True)
    assert len(set(said)) == 1
    assert "step 4: the same micro-batch, computed twice, gave other bits: rank 1 on " in said[0]
    assert "(cpu): bn1.weight; the device is not to be trusted" in said[0]
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-000000002"]


def test_looking_leaves_the_runs_bits_as_they_are(tmp_path: Path, faces: Path) -> None:
    bits = []
    for every in (0, 1):
        config = small_config(tmp_path / str(every), faces / "train.rec", {"runtime": {"replay_every": every}})
        assert run_ranks(_run, 2, config, False) == ["", ""]
        bits.append(weights(tmp_path / str(every)))
    assert torch.equal(*bits)


def test_dropout_and_batchnorm_give_the_same_twice_and_a_net_with_a_coin_does_not() -> None:
    backbone = create_backbone("r18", embedding_dim=32, dropout=0.4).train()
    before = [buffer.clone() for buffer in backbone.buffers()]
    images = torch.randn(2, 3, 112, 112)
    check_replay(backbone, images, "fp32", 1)
    assert all(torch.equal(buffer, old) for buffer, old in zip(backbone.buffers(), before))
    backbone.register_forward_hook(lambda net, given, embeddings: embeddings + next(coins))
    coins = iter((0.0, 1e-6))
    with pytest.raises(ReplayError, match="embeddings"):
        check_replay(backbone, images, "fp32", 1)


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="replay_every: -1"):
        RuntimeConfig(device="cpu", replay_every=-1).validate()
