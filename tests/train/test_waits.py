"""A step that reads no number of its device: the host, which only tells a GPU what to do, never waits for it."""

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arcdist.backbones import BackboneConfig
from arcdist.data.torch_loader import Batch
from arcdist.heads import PartialFCConfig
from arcdist.margins import MarginConfig
from arcdist.margins.registry import MARGINS
from arcdist.optim import OptimConfig
from arcdist.runtime.world import World
from arcdist.train.build import build_step
from arcdist.train.config import LoopConfig, TrainConfig
from arcdist.train.step import Step

ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"))
_READ_BY_HOST = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}
_OF_CPUS = {"_check", "_add_own"}  # functions of the head that read numbers where no one waits for them, and only there

_WAIT = {"adacos": "scale", "elasticface": "_margins"}  # the margins that say so, and their functions


class _Reads(TorchDispatchMode):
    """Note the operations whose result, or its shape, a host has to wait for where the device is a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[tuple[str, str]] = []  # the operation, and arcdist's function that does it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in _READ_BY_HOST or any(index is not None and index.dtype == torch.bool for index in indices):
            ours = [call.name for call in traceback.extract_stack() if "/arcdist/" in call.filename]
            self.by.append((name, ours[-1]))
        return func(*args, **(kwargs or {}))


def _step(device: str, margin: MarginConfig, head: PartialFCConfig, optimizer: str) -> tuple[Step, Iterator[Batch]]:
    train = LoopConfig(global_batch_size=16, micro_batch_size=8, precision="fp32", clip_norm=5.0, ema=0.9)
    optim = OptimConfig(optimizer)
    config = TrainConfig(backbone=BackboneConfig("tiny", 128), margin=margin, head=head, optim=optim, train=train)
    world = World(0, 1, 0, torch.device(device))

    def batches() -> Iterator[Batch]:
        while True:
            images = torch.rand(16, 3, 112, 112).contiguous(memory_format=torch.channels_last)
            yield Batch(images, torch.randint(40, (16,))).to(world.device)

    return build_step(config, world, num_classes=40, epoch_size=1000), batches()


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("margin", MARGINS)
def test_the_host_waits_for_no_number_within_a_step(margin: str, optimizer: str, device: str) -> None:
    step, batches = _step(device, MARGINS[margin](), PartialFCConfig(), optimizer)
    for _ in range(3):  # the first ones make what later ones use
        step(next(batches))
    batch = next(batches)
    with _Reads() as reads:
        step(batch)
    waited_for = {by for _, by in reads.by if device == "cuda" or by not in _OF_CPUS}
    assert waited_for == ({_WAIT[margin]} if margin in _WAIT else set())
    if device == "cuda" and margin not in _WAIT:
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
