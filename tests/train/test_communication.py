"""The share of a step that a rank spends in collectives."""

import json
import time
from pathlib import Path

import torch
from small_runs import disturb, small_config, small_trainer
from support import run_ranks
from torch import nn

from arcdist.data.torch_loader import Batch
from arcdist.runtime import collectives
from arcdist.runtime.device_clock import DeviceClock
from arcdist.train.communication import Communication
from arcdist.train.config import TrainConfig

CPU = torch.device("cpu")


def test_a_clock_counts_what_lies_between_start_and_stop_once() -> None:
    clock = DeviceClock(CPU)
    clock.stop()  # does not run: nothing to stop
    with clock:
        time.sleep(0.02)
        clock.start()  # runs: goes on
        time.sleep(0.02)
    time.sleep(0.1)
    clock.add(1.0)
    assert 1.04 <= clock.read() < 1.1
    assert clock.read() == 0


def _wait_in(where: str) -> float:
    """Return a rank's share where rank 1 comes 0.2 s late to the collectives of ``where``."""
    layer = nn.Linear(4, 4)
    communication = Communication(layer, CPU)
    parallel = nn.parallel.DistributedDataParallel(layer)
    late = collectives.rank() == 1
    parallel(torch.ones(2, 4)).sum().backward()  # made ready, and not timed
    with communication.step():
        output = parallel(torch.ones(2, 4))
        if where == "gather":
            time.sleep(0.2 * late)
            (output,) = collectives.gather_rows(output)
        elif where == "reduce":
            time.sleep(0.2 * late)
            collectives.all_reduce_sum(torch.ones(3))
        elif where == "gradients":
            output.register_hook(lambda _: time.sleep(0.2 * late))
        with communication.backward(sums_gradients=True):
            output.sum().backward()
        if where == "outside":
            time.sleep(0.2)
    collectives.barrier()  # not of a step
    return communication.report()["communication_share"]


def test_a_wait_for_another_rank_is_counted_in_every_collective_of_a_step() -> None:
    for where in ("gather", "reduce", "gradients"):
        waits, late = run_ranks(_wait_in, 2, where)
        assert 0.8 < waits <= 1, where
        assert 0 < late < 0.5, where
    assert max(run_ranks(_wait_in, 2, "outside")) < 0.5


def test_alone_there_is_none() -> None:
    communication = Communication(nn.Linear(2, 2), CPU)
    with communication.step():
        pass
    assert communication.report() == {}


def _share_of_a_late_rank(config: TrainConfig) -> None:
    trainer = small_trainer(config)

    def late(step: int, batch: Batch) -> Batch:
        time.sleep(0.3 * collectives.rank())
        return batch

    disturb(trainer, late)
    trainer.run()


def test_every_record_of_a_run_on_several_ranks_has_it(tmp_path: Path, faces: Path) -> None:
    run_ranks(_share_of_a_late_rank, 2, small_config(tmp_path, faces / "train.rec"))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shares = [record["communication_share"] for record in records if "loss" in record]
    assert len(shares) == 6
    assert all(0 < share < 1 for share in shares)
    assert sorted(shares)[2] > 0.3  # of six: rank 0 may be the late one where it has saved
