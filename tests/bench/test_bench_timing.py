"""Workers, what they are asked, and how they end."""

import os
import signal

import pytest
import torch

from arcdist.bench import machine
from arcdist.bench.timing import StepTime, slowest, spread
from arcdist.bench.workers import NotMeasuredError, Workers

CPU = torch.device("cpu")


class _Holder:
    def __init__(self, mib: int) -> None:
        self.before = machine.used_mib(CPU)
        machine.reset_peak(CPU)
        torch.ones(mib, 2**18)
        self.peak = machine.peak_mib(CPU)

    def grown_mib(self) -> float:
        return self.peak - self.before

    def fail(self) -> None:
        raise ValueError("what it said")

    def ask_for_too_much(self) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_says_how_much_memory_it_held_at_most_and_what_went_wrong() -> None:
    worker = Workers(_Holder, 64)
    try:
        assert 60 < worker.ask("grown_mib")[0] < 90
        with pytest.raises(RuntimeError, match="what it said"):
            worker.ask("fail")
        with pytest.raises(NotMeasuredError, match="allocate"):
            worker.ask("ask_for_too_much")
        assert 60 < worker.ask("grown_mib")[0] < 90
        with pytest.raises(NotMeasuredError, match="ended with code -9"):
            worker.ask("die")
    finally:
        worker.close()


def test_a_step_of_several_ranks_takes_as_long_as_on_the_slowest() -> None:
    quick, slow = StepTime(1.0, 1.0, 1.0), StepTime(3.0, 1.0, 0.0)
    assert slowest([[quick, slow], [slow, quick]]) == [slow, slow]


def test_the_spread_is_that_of_numpys_percentiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == {"median_s": 3.5, "p20_s": 2.0, "p80_s": 5.0}


def test_the_description_names_machine_versions_commit_and_date() -> None:
    found = machine.description(CPU, threads=3)
    assert found["machine"]["threads"] == 3
    assert found["machine"]["cpu"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["date"].endswith("+00:00")
    assert "commit" in found
    assert 0 < machine.free_mib(CPU) <= found["machine"]["memory_mib"]
