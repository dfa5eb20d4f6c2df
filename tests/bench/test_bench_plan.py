"""``arcdist bench plan``: the memory of a real step is what the plan says."""

from contextlib import closing

import pytest

from arcdist.bench.plan_memory import memory
from arcdist.bench.plan_network import backbone_cost
from arcdist.bench.plan_probe import MemoryProbe, PlanCase
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.workers import Workers
from arcdist.cli.main import main


def test_a_real_step_takes_the_memory_that_was_planned() -> None:
    case = PlanCase("tiny", 40_000, 48, optimizer="adamw")
    planned = memory(Sizes.of(case.config(), 1, 40_000, "fp32", "cpu"), backbone_cost(case.config().backbone, "fp32"))
    with closing(Workers(MemoryProbe, case, 1)) as workers:
        (measured,) = workers.ask("peak_mib")
    assert sum(planned.values()) / 2**20 == pytest.approx(measured, rel=0.1)


def test_an_unknown_part_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "plan", "parts=price"]) == 2
    assert "parts: 'price': must be of memory, time" in capsys.readouterr().err
