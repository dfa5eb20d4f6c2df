"""What a run needs before any GPU is rented: memory, time, communication and cost, computed from its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from arcdist.bench.plan_machine import GPUS, Machine
from arcdist.bench.plan_memory import memory
from arcdist.bench.plan_network import BackboneCost
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.plan_time import Links, step_time
from arcdist.errors import ConfigError

_MOST_ROWS = 65536
_FEWER = 0.1  # head.sample_rate of the ways
MOST_GPUS = 4096


@dataclass
class Cluster:
    """The machines, and the data that a configuration does not tell the size of."""

    gpu: str = field(default="h100", metadata={"help": f"{' | '.join(GPUS)}"})
    machine: str = field(default="", metadata={"help": "result of arcdist bench plan or bench step, instead of gpu"})
    gpus: int = field(default=8, metadata={"help": "ranks of the run"})
    gpus_per_node: int = field(default=8, metadata={"help": "that NVLink joins"})
    network_gb_per_s: float = field(default=50.0, metadata={"help": "of a GPU to other nodes, one way, in GB/s"})
    memory_gb: float = field(default=0.0, metadata={"help": "of a GPU, in GB; 0: as its kind has it"})
    price: float = field(default=0.0, metadata={"help": "of a GPU for an hour, in any currency"})
    classes: int = field(default=85_742, metadata={"help": "classes of the data"})
    images: int = field(default=5_822_653, metadata={"help": "images of an epoch"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.gpu not in GPUS:
            raise ConfigError(f"gpu: {self.gpu!r}: must be one of {', '.join(GPUS)}")
        for name in ("gpus", "gpus_per_node", "classes", "images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}: must be at least 1")
        if not 0 < self.network_gb_per_s < float("inf"):
            raise ConfigError(f"network_gb_per_s: {self.network_gb_per_s}: must be above 0")
        for name in ("price", "memory_gb"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: {getattr(self, name)}: must be 0 or above")

    @property
    def links(self) -> Links:
        """Return what joins the nodes."""
        return Links(self.gpus_per_node, self.network_gb_per_s * 1e9)


@dataclass(frozen=True)
class Plan:
    """What a run of these sizes costs on a cluster."""

    sizes: Sizes
    cost: BackboneCost
    cluster: Cluster
    machine: Machine
    backbone: str = ""

    @property
    def capacity_bytes(self) -> float:
        """Return what a GPU has."""
        return self.cluster.memory_gb * 1e9 or self.machine.memory_bytes

    @property
    def memory_bytes(self) -> float:
        """Return what a GPU needs."""
        return sum(memory(self.sizes, self.cost).values())

    @property
    def fits(self) -> bool:
        """Return whether a GPU has it."""
        return self.memory_bytes <= self.capacity_bytes

    def step_time(self) -> dict[str, float]:
        """Return the seconds of a step by part."""
        return step_time(self.sizes, self.cost, self.machine, self.cluster.links, self.backbone)

    @property
    def images_per_s(self) -> float:
        """Return the rate of all GPUs."""
        return self.sizes.images / sum(self.step_time().values())

    @property
    def epoch_hours(self) -> float:
        """Return the hours of a pass over the data."""
        return self.cluster.images / self.images_per_s / 3600

    @property
    def epoch_cost(self) -> float:
        """Return what that pass costs, in the currency of the price."""
        return self.epoch_hours * self.sizes.ranks * self.cluster.price

    def with_(self, **changes: Any) -> "Plan":
        """Return the plan of other sizes."""
        return replace(self, sizes=replace(self.sizes, **changes))

    def largest_rows(self) -> int:
        """Return the most rows of a GPU's forward pass that fit, 0 if not even two do."""
        low, high = 1, _MOST_ROWS
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self.with_(rows=middle).fits else (low, middle)
        return low if low > 1 else 0

    def scaling(self) -> "Iterator[Plan]":
        """Yield this plan on 1, 2, 4 … 4,096 GPUs, each with as many rows as here."""
        ranks = 1
        while ranks <= MOST_GPUS:
            yield self.with_(ranks=ranks)
            ranks *= 2

    def best_group(self) -> int:
        """Return the ``head.group_size`` of the fastest step that fits, 0 where the flat head is that; nodes whole."""
        ranks, node = self.sizes.ranks, self.cluster.gpus_per_node
        sizes = [size for size in range(1, ranks) if ranks % size == 0 and (size % node == 0 or node % size == 0)]
        plans = {size: self.with_(group_size=size) for size in (0, *sizes)}
        fitting = {size: plan for size, plan in plans.items() if plan.fits} or plans
        return max(fitting, key=lambda size: fitting[size].images_per_s)

    def ways(self) -> "dict[str, Plan]":
        """Return this plan and those with options that make the head smaller or cheaper, or the backbone smaller."""
        found = {"as configured": self}
        narrow = {"centers_bytes": 2}
        if self.sizes.fused and self.sizes.centers_bytes > 2:
            found["head.dtype=bf16"] = self.with_(**narrow)
        fewer = {"sample_rate": min(_FEWER, self.sizes.sample_rate)}
        if self.sizes.sample_rate > _FEWER:
            found[f"head.sample_rate={_FEWER}"] = self.with_(**fewer)
            if "head.dtype=bf16" in found:
                found["both"] = self.with_(**fewer, **narrow)
        for name, plan in list(found.items()):
            group = plan.best_group()
            if group not in (0, plan.sizes.group_size):
                way = f"head.group_size={group}"
                found[way if name == "as configured" else f"{name}, {way}"] = plan.with_(group_size=group)
        if self.sizes.ranks > 1 and not self.sizes.shares_weights:
            found["train.parallel=fsdp"] = self.with_(shares_weights=True)
        return found

    def advice(self) -> list[str]:
        """Return what to change where it does not fit, what changes results least first; empty where it fits."""
        if self.fits:
            return []
        told = []
        more = next(
            (plan.sizes.ranks for plan in self.scaling() if plan.sizes.ranks > self.sizes.ranks and plan.fits), 0
        )
        if more:
            told.append(f"gpus={more} with the same rows each (the centers are shared out over more)")
        told += [f"{name}: {plan.memory_bytes / 2**30:.1f} GiB" for name, plan in self.ways().items() if plan.fits]
        rows = self.largest_rows()
        if rows:
            told.append(f"at most {rows} rows of a GPU in a forward pass: train.micro_batch_size={rows} or less")
        return told or ["nothing here is enough alone: more GPUs and the smallest of the ways above"]
