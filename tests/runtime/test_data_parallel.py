"""The mean of gradients over ranks, as a run may choose to send them."""

import pytest
import torch
from support import run_ranks
from torch import Tensor, nn

from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.data_parallel import DataParallelConfig

ROWS = 12
_ROUNDING = {"fp32": 1e-12, "bf16": 2**-7, "fp16": 2**-10}  # of the largest gradient; two ranks' sum rounds twice


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def _gradients(config: DataParallelConfig | None) -> list[Tensor]:
    """Return the gradients of the mean over all rows, which the ranks share; of one process without a config."""
    net = _net()
    rows = torch.randn(ROWS, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if config is None:
        net(rows).pow(2).mean().backward()
    else:
        mine = rows.chunk(collectives.world_size())[collectives.rank()]
        parallel = config.build(net, torch.device("cpu"))  # whose end would be the end of its gradients
        parallel(mine).pow(2).mean().backward()
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("gradients", _ROUNDING)
def test_gradients_are_those_of_one_process(gradients: str, world_size: int) -> None:
    exact = _gradients(None)
    for rank in run_ranks(_gradients, world_size, DataParallelConfig(gradients, bucket_mib=1e-4)):
        errors = [float((found - right).abs().max() / right.abs().max()) for found, right in zip(rank, exact)]
        assert max(errors) <= _ROUNDING[gradients]
        assert gradients == "fp32" or max(errors) > 2**-14  # they were sent so


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (DataParallelConfig("fp8"), "train.ddp.gradients: 'fp8': must be one of fp32, bf16, fp16"),
        (DataParallelConfig(bucket_mib=0), "train.ddp.bucket_mib: 0: must be a number above 0, such as 25"),
    ],
)
def test_what_cannot_be_is_said(config: DataParallelConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.validate()
