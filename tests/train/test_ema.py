"""Runs that keep a moving average of their weights."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import disturb, losses_of_run, small_config, small_trainer, stop_after_four_steps, weights
from support import run_ranks
from torch import nn

from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.optim.averaging import AveragedWeights

EMA = {"train": {"ema": 0.9}}


def test_the_average_is_that_of_its_equation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    average = AveragedWeights(model, 0.5)
    expected = model[0].weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            model[0].weight += torch.randn(4, 3)
        model(torch.randn(5, 3).double())
        decay = min(0.5, step / (step + 10))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
        average.update(step, torch.zeros(()))
    torch.testing.assert_close(average.model[0].weight, expected, rtol=1e-12, atol=0)
    assert not torch.equal(average.model[1].running_mean, model[1].running_mean)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_with_an_average_goes_on_from_a_checkpoint_with_the_same_bits(
    tmp_path: Path, faces: Path, world_size: int
) -> None:
    rec = faces / "train.rec"
    run_ranks(losses_of_run, world_size, small_config(tmp_path / "whole", rec, EMA))
    run_ranks(stop_after_four_steps, world_size, small_config(tmp_path / "cut", rec, EMA))
    run_ranks(losses_of_run, world_size, small_config(tmp_path / "cut", rec, EMA))
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_the_average_is_what_is_evaluated_and_kept_and_training_is_as_without_it(tmp_path: Path, faces: Path) -> None:
    sets = {"evaluate": {"sets": [str(faces / "held_out.bin")]}}
    plain = losses_of_run(small_config(tmp_path / "plain", faces / "train.rec", sets))
    trainer = small_trainer(small_config(tmp_path / "mean", faces / "train.rec", EMA, sets))
    trainer.run()
    kept = load_file(tmp_path / "mean" / "model.safetensors")
    average = trainer.step.trained.state_dict()
    assert trainer.step.trained is not trainer.step.backbone
    assert all(torch.equal(tensor, average[key]) for key, tensor in kept.items())
    assert torch.equal(weights(tmp_path / "plain"), torch.cat([
        t.double().flatten() for _, t in sorted(trainer.step.backbone.state_dict().items())
    ]))  # fmt: skip
    assert not torch.equal(weights(tmp_path / "plain"), weights(tmp_path / "mean"))
    assert len(plain) == 6


def test_a_void_step_leaves_the_average_as_it_is(tmp_path: Path, faces: Path) -> None:
    trainer = small_trainer(small_config(tmp_path / "run", faces / "train.rec", EMA))
    seen = []

    def broken(step: int, batch: Batch) -> Batch:
        seen.append(next(trainer.step.trained.parameters()).detach().clone())
        return Batch(batch.images * float("nan"), batch.labels) if step == 3 else batch

    disturb(trainer, broken)
    trainer.run()
    moved = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert moved == [True, True, False, True, True]


def test_a_decay_of_one_is_refused(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(ConfigError, match="train.ema: 1.0: must be 0 .no average. or below 1"):
        small_config(tmp_path / "run", faces / "train.rec", {"train": {"ema": 1.0}})
