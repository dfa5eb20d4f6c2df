"""A loss that leaps up is told of while it is still a number."""

import logging
from pathlib import Path

import pytest
from small_runs import disturb, small_config, small_trainer
from support import run_ranks

from arcdist.data.torch_loader import Batch
from arcdist.train.config import TrainConfig
from arcdist.train.rising_loss import RisingLoss


def _said_by_a_run(config: TrainConfig, from_step: int) -> list[str]:
    """Return what is said of a run whose learning rate is 10,000 times as high from a step on."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("arcdist").addHandler(handler)
    logging.getLogger("arcdist").disabled = False
    trainer = small_trainer(config)

    def spoil(step: int, batch: Batch) -> Batch:
        if step == from_step:
            trainer.step.lr *= 1e4
        return batch

    disturb(trainer, spoil)
    trainer.run()
    return [line for line in said if "the loss has leapt" in line]


def test_a_run_is_told_of_within_some_steps_when_it_diverges_and_not_while_it_learns(
    tmp_path: Path, faces: Path
) -> None:
    longer = {"train": {"steps": 40}, "checkpoint": {"every": 0}, "optim": {"schedule": {"warmup_steps": 0}}}
    config = small_config(tmp_path / "run", faces / "train.rec", longer)
    ((warning, *_),) = run_ranks(_said_by_a_run, 1, config, 31)
    assert 32 <= int(warning.split(":")[0].removeprefix("step ")) <= 36
    assert "lower optim.lr" in warning


@pytest.mark.parametrize(
    ("losses", "times"),
    [
        ([30.0] * 8 + [60.0, 61.0, 62.0], 1),
        ([30.0] * 8 + [60.0, 30.0, 60.0], 2),
        ([30.0] * 7 + [60.0], 0),  # too few to know
        ([30.0 + (-1) ** n for n in range(20)] + [35.0], 0),  # within what it does
        ([40.0 - n for n in range(30)], 0),
        ([10.0 * 1.03**n for n in range(60)], 0),  # as a margin grows, say
    ],
)
def test_it_is_told_once_until_it_has_come_down(losses: list[float], times: int, caplog) -> None:
    rising = RisingLoss()
    with caplog.at_level(logging.WARNING, "arcdist"):
        for step, loss in enumerate(losses):
            rising.look_at(step, loss)
    assert len(caplog.records) == times
