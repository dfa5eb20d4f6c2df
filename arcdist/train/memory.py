"""Memory that ran out: which keys of the configuration would need less of it."""

import contextlib
from collections.abc import Generator

import torch

from arcdist.errors import ArcdistError
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig

_HOST_SIGNS = ("can't allocate memory", "not enough memory", "bad_alloc")


class OutOfMemoryError(ArcdistError):
    """A device or the host has no memory left for what this configuration needs."""


@contextlib.contextmanager
def memory_advice(config: TrainConfig, world: World) -> Generator[None]:
    """Raise OutOfMemoryError, which says what to change, where the block runs out of memory on device or host."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(_told(error, f"GPU {world.local_rank}", _for_device(config, world))) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _HOST_SIGNS):
            raise
        needs = _for_host(config)
        if world.device.type == "cpu":
            needs = [*_for_device(config, world), *needs]
        raise OutOfMemoryError(_told(error, "the host", needs)) from error


def _told(error: BaseException, where: str, advice: list[str]) -> str:
    reason = (str(error).strip() or "an allocation failed").splitlines()[0]
    return (
        f"{where} is out of memory: {reason}; what needs less, the first changing results least: {'; '.join(advice)}. "
        "arcdist plan says what a configuration needs; the same command then goes on from the last checkpoint"
    )


def _for_device(config: TrainConfig, world: World) -> list[str]:
    train, head = config.train, config.head
    advice = ["more ranks (each holds its share of the centers)"]
    if world.size > 1 and train.parallel == "ddp":
        advice.append("train.parallel=fsdp (each holds its share of the backbone)")
    if train.precision == "fp32":
        advice.append("train.precision=bf16")
    if head.dtype == "fp32":
        advice.append("head.dtype=bf16")
    micro = train.micro_batch(world.size)
    smaller = next((size for size in range(micro // 2, 1, -1) if micro % size == 0), None)  # that the ranks can share
    if smaller is not None:
        advice.append(f"train.micro_batch_size={smaller} (now {micro}; BatchNorm's statistics are of so many rows)")
    if head.sample_rate > 0.1:
        advice.append(f"head.sample_rate=0.1 (now {head.sample_rate:g})")
    return advice


def _for_host(config: TrainConfig) -> list[str]:
    loader = config.data.loader
    advice = ["runtime.keep_memory=false"] if config.runtime.keep_memory else []
    if loader.prefetch:
        advice.append(f"data.loader.prefetch={loader.prefetch // 2} (now {loader.prefetch})")
    if loader.workers > 1:
        advice.append(f"data.loader.workers={loader.workers // 2} (now {loader.workers})")
    return advice
