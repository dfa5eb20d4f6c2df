"""A step that reads no number of its device: the host, which only tells a GPU what to do, never waits for it."""

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arcdist.backbones import BackboneConfig
from arcdist.data.torch_loader import Batch
from arcdist.margins.registry import MARGINS
from arcdist.optim import OptimConfig
from arcdist.runtime.world import World
from arcdist.train.build import build_step
from arcdist.train.config import LoopConfig, TrainConfig
from arcdist.train.step import Step

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


def _step(device: str, margin: str, optimizer: str) -> tuple[Step, Iterator[Batch]]:
    train = LoopConfig(global_batch_size=16, micro_batch_size=8, precision="fp32", clip_norm=5.0, ema=0.9)
    backbone, optim = BackboneConfig("tiny", 128), OptimConfig(optimizer)
    config = TrainConfig(backbone=backbone, margin=MARGINS[margin](), optim=optim, train=train)
    world = World(0, 1, 0, torch.device(device))

    def batches() -> Iterator[Batch]:
        while True:
            images = torch.rand(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
            yield Batch(images, torch.randint(40, (16,))).to(world.device)

    step, made = build_step(config, world, num_classes=40, epoch_size=1000), batches()
    for _ in range(2):  # the first ones make what later ones use
        step(next(made))
    return step, made


@pytest.mark.parametrize(("margin", "optimizer"), [*((name, "sgd") for name in MARGINS), ("combined", "adamw")])
def test_a_step_reads_no_number_but_where_it_says_so(margin: str, optimizer: str) -> None:
    step, batches = _step("cpu", margin, optimizer)
    batch = next(batches)
    with _Reads() as reads:
        step(batch)
    assert {by for _, by in reads.by} - _OF_CPUS == ({_WAIT[margin]} if margin in _WAIT else set())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_the_host_waits_for_no_number() -> None:
    for margin in MARGINS.keys() - _WAIT.keys():
        step, batches = _step("cuda", margin, "sgd")
        batch = next(batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
