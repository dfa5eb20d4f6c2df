"""Steps whose loss is not finite: passed over, or a way back to the last checkpoint, or the end, on all ranks alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import disturb, small_config, small_trainer, weights
from support import run_ranks

from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.train.config import TrainConfig
from arcdist.train.verdicts import GPU_LAG
from arcdist.train.void_steps import DivergedError, VoidStepsConfig


def _run(config: TrainConfig, bad_steps: tuple[int, ...], times: int, lag: int = 0) -> str:
    """Do a run in which rank 1 sees NaN in some steps, so many times; return why it stopped, empty where it did not."""
    trainer = small_trainer(config)
    trainer.step.verdicts.lag = lag
    seen: list[int] = []

    def poison(step: int, batch: Batch) -> Batch:
        if step in bad_steps and seen.count(step) < times and collectives.rank() == 1:
            seen.append(step)
            return Batch(torch.full_like(batch.images, torch.nan), batch.labels)
        return batch

    disturb(trainer, poison)
    try:
        trainer.run()
    except DivergedError as error:
        return str(error)
    collectives.barrier()
    return ""


def _void(**values: Any) -> dict[str, Any]:
    return {"train": {"void": values}}


def test_what_was_wrong_once_is_done_again_from_the_last_checkpoint_with_the_same_bits(tmp_path, faces) -> None:
    rec = faces / "train.rec"
    run_ranks(_run, 2, small_config(tmp_path / "whole", rec), (), 0)
    assert run_ranks(_run, 2, small_config(tmp_path / "back", rec, _void(limit=2)), (4, 5), 1) == ["", ""]
    assert json.loads((tmp_path / "back/summary.json").read_text())["void_steps"] == 2
    records = [json.loads(line) for line in (tmp_path / "back/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all("loss" in record for record in records)
    assert torch.equal(weights(tmp_path / "back"), weights(tmp_path / "whole"))


def test_a_step_of_which_a_gpu_has_not_told_yet_that_it_is_void_is_not_saved(tmp_path, faces) -> None:
    rec = faces / "train.rec"
    run_ranks(_run, 2, small_config(tmp_path / "whole", rec), (), 0)
    run_ranks(_run, 2, small_config(tmp_path / "back", rec, _void(limit=2)), (3, 4), 1, GPU_LAG)
    assert torch.equal(weights(tmp_path / "back"), weights(tmp_path / "whole"))


def test_what_comes_again_at_the_same_step_stops_every_rank(tmp_path, faces) -> None:
    config = small_config(tmp_path, faces / "train.rec", _void(limit=2))
    for answer in run_ranks(_run, 2, config, (4, 5), 2):
        assert answer.startswith("step 5: loss or gradients are not finite (the loss is nan), 2 in a row; lower")


def test_a_single_void_step_is_passed_over_and_counted(tmp_path, faces) -> None:
    config = small_config(tmp_path, faces / "train.rec", _void(policy="skip", limit=2))
    assert run_ranks(_run, 2, config, (3, 5), 9) == ["", ""]
    assert json.loads((tmp_path / "summary.json").read_text())["void_steps"] == 2


def test_without_a_checkpoint_there_is_no_way_back(tmp_path, faces) -> None:
    config = small_config(tmp_path, faces / "train.rec", _void(limit=1))
    for answer in run_ranks(_run, 2, config, (1,), 1):
        assert answer.startswith("step 1: loss or gradients are not finite")
        assert "there is no checkpoint yet to go back to; lower optim.lr" in answer


def test_a_state_that_is_not_finite_is_never_a_checkpoint(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, CheckpointConfig())
    tensors = {"backbone.weight": torch.ones(3, 2), "head.count": torch.zeros((), dtype=torch.int64)}
    manager.save(1, tensors, {"config": {}}, wait=True)
    tensors["backbone.weight"][1, 1] = torch.nan
    manager.save(2, tensors, {"config": {}}, wait=True)
    fault = manager.wait()
    assert fault is not None
    assert "backbone.weight holds numbers that are not finite" in fault
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000001"]


@pytest.mark.parametrize(("values", "key"), [({"policy": "hope"}, "policy"), ({"limit": 0}, "limit")])
def test_a_policy_that_cannot_be_is_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"train.void.{key}"):
        VoidStepsConfig(**values).validate()
