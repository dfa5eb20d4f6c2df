"""The whole examination: of each rank alone, then of what lies between them."""

import os
from dataclasses import dataclass, field

import torch

from arcdist.bench.workers import Workers
from arcdist.doctor.devices import look_at_device, look_at_node
from arcdist.doctor.disks import look_at_data, look_at_folder
from arcdist.doctor.finding import Finding, Row, rows
from arcdist.doctor.limits import look_at_limits
from arcdist.doctor.ranks import cannot_join, look_at_ranks
from arcdist.doctor.software import look_at_software
from arcdist.errors import ArcdistError, ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.world import RuntimeConfig, abandon_world, device_of_rank, open_world


@dataclass
class DoctorConfig:
    """What ``arcdist doctor`` is told."""

    data: str = field(default="", metadata={"help": "a .rec, or a folder of images: how fast can it be read?"})
    folder: str = field(default="runs", metadata={"help": "of the runs: can checkpoints be written there?"})
    ranks: int = field(
        default=0,
        metadata={
            "help": "start so many on this machine; 0: one a GPU, 1 on CPUs. Under torchrun its ranks are looked at"
        },
    )
    link_mib: int = field(default=64, metadata={"help": "how much is sent to measure the bandwidth between ranks"})
    device: str = field(default="auto", metadata={"help": "auto | cpu | cuda; auto takes a GPU where there is one"})
    timeout_s: int = field(default=60, metadata={"help": "longest wait for another rank, in seconds"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        self.runtime.validate()
        if not 0 <= self.ranks <= 1024:
            raise ConfigError(f"ranks: {self.ranks}: must be from 0 to 1024")
        if self.device != "cpu" and 0 < torch.cuda.device_count() < self.ranks:
            raise ConfigError(f"ranks: {self.ranks}: this machine has {torch.cuda.device_count()} GPUs; or device=cpu")
        if self.ranks and "WORLD_SIZE" in os.environ:
            raise ConfigError("ranks: torchrun has started the ranks already; leave it out")
        if not 1 <= self.link_mib <= 4096:
            raise ConfigError(f"link_mib: {self.link_mib}: must be from 1 to 4096")

    @property
    def runtime(self) -> RuntimeConfig:
        """What the ranks run on."""
        return RuntimeConfig(device=self.device, timeout_s=self.timeout_s)


def examine(config: DoctorConfig) -> list[Row]:
    """Return what is found of all ranks; under torchrun each of them calls it, and the others than rank 0 get nothing.

    Where ranks do not find each other, the first of every node gets what is found of its own.
    """
    ranks = config.ranks
    if not ranks and "WORLD_SIZE" not in os.environ and config.device != "cpu":
        ranks = torch.cuda.device_count()
    if ranks <= 1:
        return examine_rank(config)
    workers = Workers(_Rank, config, ranks=ranks)
    try:
        return workers.ask("examine")[0]
    finally:
        workers.close()


class _Rank:
    """A rank of this machine, which no launcher has started."""

    def __init__(self, config: DoctorConfig) -> None:
        os.environ.update(LOCAL_RANK=os.environ["RANK"], LOCAL_WORLD_SIZE=os.environ["WORLD_SIZE"])
        self.config = config

    def examine(self) -> list[Row]:
        return examine_rank(self.config)


def examine_rank(config: DoctorConfig) -> list[Row]:
    """Look at this rank, join the others, and return what rank 0 knows of them all."""
    alone = _alone(config)
    try:
        world = open_world(config.runtime)
        if world.size == 1:
            return rows([alone])
        everyones = collectives.gather_objects(alone)
        between = look_at_ranks(world, config.folder, config.link_mib)
    except (ArcdistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        abandon_world()
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        return rows([[*alone, cannot_join(reason)]]) if first else []
    return [*rows(everyones), *rows([between])] if world.is_first else []


def _alone(config: DoctorConfig) -> list[Finding]:
    """Return what is found of this rank; what belongs to a node, its first rank looks at."""
    local_rank, local_size, size = (
        int(os.environ.get(name, default))
        for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"), ("WORLD_SIZE", "1"))
    )
    device = device_of_rank(config.device, local_rank)
    findings = look_at_device(device, config.device == "cpu")
    if local_rank == 0:
        local_gpus = local_size if device.type == "cuda" else 0
        findings = [*look_at_software(device), *findings, *look_at_node(local_size), *look_at_limits(size, local_gpus)]
        findings += [look_at_data(config.data, local_gpus), look_at_folder(config.folder)]
    return findings
