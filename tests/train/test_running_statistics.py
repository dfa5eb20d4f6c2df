"""Running statistics over micro-batches."""

import pytest
import torch
from support import run_ranks
from torch import Tensor, nn

from arcdist.runtime import collectives
from arcdist.train.running_statistics import RunningStatistics


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3)).double()


def _steps(batches: Tensor, rounds: int) -> list[Tensor]:
    """Return the running statistics after a step over each batch, this rank taking its share in ``rounds``."""
    net = _net()
    statistics = RunningStatistics(net)
    for batch in batches:
        share = batch.chunk(collectives.world_size())[collectives.rank()]
        for index, rows in enumerate(share.chunk(rounds)):
            statistics.begin_round(index)
            net(rows)
        statistics.end_step(torch.zeros(1, dtype=torch.float64))
    return [buffer.clone() for buffer in net.buffers()]


def test_one_round_moves_them_as_plain_batchnorm_does() -> None:
    batches = torch.randn(3, 8, 4, dtype=torch.float64)
    plain = _net()
    for batch in batches:
        plain(batch)
    expected = list(plain.buffers())
    for ours, theirs in zip(_steps(batches, 1), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("world_size", [2, 4])
def test_they_do_not_depend_on_how_many_ranks_run_the_micro_batches(world_size: int) -> None:
    batches = torch.randn(3, 16, 4, dtype=torch.float64)
    alone = _steps(batches, 4)
    for rank in run_ranks(_steps, world_size, batches, 4 // world_size):
        for shared, single in zip(rank, alone):
            torch.testing.assert_close(shared, single, rtol=1e-12, atol=1e-13)
