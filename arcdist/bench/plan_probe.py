"""A run's real step in processes of its own: the memory, the time and the communication that a plan is held against."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arcdist.backbones import BackboneConfig
from arcdist.bench import machine
from arcdist.data.torch_loader import Batch
from arcdist.heads import PartialFCConfig
from arcdist.optim import OptimConfig
from arcdist.runtime import collectives
from arcdist.runtime.data_parallel import DataParallelConfig
from arcdist.runtime.fully_sharded import FullyShardedConfig
from arcdist.runtime.world import RuntimeConfig, World, open_world
from arcdist.train.build import build_step
from arcdist.train.config import LoopConfig, TrainConfig
from arcdist.train.step import Step

_M_MMAP_THRESHOLD, _GIVEN_BACK_FROM = -3, 65536  # malloc.h; bytes
_MIB = 2**20


@dataclass(frozen=True)
class PlanCase:
    """A step to predict and to do: the sizes are those of all ranks."""

    backbone: str
    num_classes: int
    batch_size: int
    precision: str = "fp32"
    ranks: int = 1
    sample_rate: float = 1.0
    optimizer: str = "sgd"
    checkpoint_activations: bool = False
    centers: str = "fp32"
    rounds: int = 1
    group_size: int = 0
    gradients: str = "fp32"
    parallel: str = "ddp"

    def config(self) -> TrainConfig:
        """Return the configuration of its run."""
        micro = self.batch_size // (self.ranks * self.rounds)
        sends = {"ddp": DataParallelConfig, "fsdp": FullyShardedConfig}[self.parallel]
        of_parallel: dict[str, Any] = {self.parallel: sends(gradients=self.gradients)}
        head = PartialFCConfig(sample_rate=self.sample_rate, dtype=self.centers, group_size=self.group_size)
        return TrainConfig(
            backbone=BackboneConfig(
                self.backbone, self.embedding_dim, checkpoint_activations=self.checkpoint_activations
            ),
            head=head,
            optim=OptimConfig(name=self.optimizer),
            train=LoopConfig(
                global_batch_size=self.batch_size,
                micro_batch_size=micro,
                precision=self.precision,
                parallel=self.parallel,
                **of_parallel,
            ),
        )

    @property
    def embedding_dim(self) -> int:
        """Return that of the demo for its net, else that of the field."""
        return 128 if self.backbone == "tiny" else 512

    def step(self, world: World) -> Step:
        """Return the real step of that run."""
        return build_step(self.config(), world, num_classes=self.num_classes, epoch_size=100_000)

    def batches(self, world: World) -> Iterator[Batch]:
        """Yield this rank's images, channels_last as a loader leaves them, and labels."""
        draws = torch.Generator().manual_seed(world.rank)
        rows = self.batch_size // self.ranks
        while True:
            images = torch.rand(rows, 3, 112, 112, generator=draws).contiguous(memory_format=torch.channels_last)
            yield Batch(images, torch.randint(self.num_classes, (rows,), generator=draws))


@dataclass
class MemoryProbe:
    """A step's memory: what the process holds at most, less what it held with the libraries' code and nothing else.

    Tensors of 64 KiB and more are given back to the system when they are freed, so that no freed memory counts.
    """

    case: PlanCase
    threads: int

    def __post_init__(self) -> None:
        world = _world(self.threads, self.case.ranks, keep_memory=False)
        with contextlib.suppress(AttributeError):  # glibc only
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_FROM)
        small = 4 * self.case.ranks * self.case.rounds
        tiny = replace(self.case, num_classes=64 * self.case.ranks, batch_size=small)
        _steps(tiny, tiny.step(world), world, 1)
        gc.collect()
        self._before_mib = machine.used_mib(world.device)
        machine.reset_peak(world.device)
        step = self.case.step(world)
        _steps(self.case, step, world, 3)  # what DDP makes anew after the first is touched in the second
        self._peak_mib = machine.peak_mib(world.device) - self._before_mib

    def peak_mib(self) -> float:
        """Return it."""
        return self._peak_mib


@dataclass
class TimeProbe:
    """A step's time, with the allocator as a run has it; and the bytes that its collectives are given."""

    case: PlanCase
    threads: int

    def __post_init__(self) -> None:
        self._world = _world(self.threads, self.case.ranks, keep_memory=True)
        self._step = self.case.step(self._world)
        _steps(self.case, self._step, self._world, 2)

    def seconds(self, count: int) -> list[float]:
        """Return the seconds of so many steps."""
        batches, seconds = self.case.batches(self._world), []
        for _ in range(count):
            batch = next(batches)
            collectives.barrier()
            start = time.perf_counter()
            self._step(batch)
            seconds.append(time.perf_counter() - start)
        return seconds

    def communicated(self) -> dict[str, int]:
        """Return the bytes that each kind of collective is given in one step."""
        with CollectiveBytes() as counter:
            self._step(next(self.case.batches(self._world)))
        return counter.bytes


class CollectiveBytes(TorchDispatchMode):
    """Counts the bytes that torch's collectives are given or give, whichever is more, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: "dict[str, Any] | None" = None
    ) -> Any:
        """Do it, and count it."""
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d" and "barrier" not in str(func):
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            name = func.overloadpacket.__name__.strip("_")
            self.bytes[name] = self.bytes.get(name, 0) + max(tensor.nbytes for tensor in tensors)
        return result


def _world(threads: int, ranks: int, keep_memory: bool) -> World:
    return open_world(RuntimeConfig("cpu", max(1, threads // ranks), keep_memory=keep_memory))


def _steps(case: PlanCase, step: Step, world: World, count: int) -> None:
    batches = case.batches(world)
    for _ in range(count):
        step(next(batches))
