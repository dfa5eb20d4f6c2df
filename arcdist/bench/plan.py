"""What a run needs before any GPU is rented: memory, time and communication of a step, computed from its configuration.

The backbone's operations and kept activations are counted on the real network; rates are a machine's. What is assumed
stands in ``Cluster`` and in the constants below.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from arcdist.backbones import BackboneConfig
from arcdist.errors import ConfigError
from arcdist.runtime.precision import autocast

_GB = 1e9
_CONV_EFFICIENCY = 0.4  # of the matmul rate that convolutions reach, the elementwise layers' time included
_OVERLAP = 0.6  # of the backward pass that the gradients' all-reduce hides behind
_BACKWARD_SHARE = 2 / 3
_COLLECTIVE_S = {"node": 10e-6, "network": 25e-6}  # latency; across nodes another 5 µs for each doubling of them
_CONTEXT_BYTES = 1.0e9  # of CUDA and its libraries
_BLOCK = 8192  # centers whose logits are there at once
_LARGEST_BATCH = 65536


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU; rates in TFLOP/s of bf16 (V100: fp16) products and GB/s of memory and of NVLink, one way."""

    tflop_per_s: float
    memory_gb_per_s: float
    memory_gb: float
    node_gb_per_s: float
    source: str


GPUS = {
    "h200": Gpu(790, 4300, 141, 450, "products and copies measured on one card"),
    "h100": Gpu(0.8 * 989, 0.9 * 3350, 80, 450, "0.8 and 0.9 of the data sheet's rates"),
    "a100": Gpu(0.8 * 312, 0.9 * 2039, 80, 300, "0.8 and 0.9 of the data sheet's rates"),
    "v100": Gpu(0.8 * 125, 0.9 * 900, 32, 150, "0.8 and 0.9 of the data sheet's rates"),
}


@dataclass
class Cluster:
    """The machines, and the data that a configuration does not tell the size of."""

    gpu: str = field(default="h100", metadata={"help": f"{' | '.join(GPUS)}"})
    gpus: int = field(default=8, metadata={"help": "ranks of the run"})
    gpus_per_node: int = field(default=8, metadata={"help": "that NVLink joins"})
    network_gb_per_s: float = field(default=50.0, metadata={"help": "of a GPU to other nodes, one way, in GB/s"})
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
        if not 0 < self.network_gb_per_s < math.inf or not 0 <= self.price < math.inf:
            raise ConfigError("network_gb_per_s and price: must be above 0, and 0 or above")


@dataclass(frozen=True)
class BackboneCost:
    """What was counted on a backbone: parameters, BatchNorm channels, and of an image FLOPs and kept bytes."""

    parameters: int
    normalized_channels: int
    flops: float
    kept_bytes: float


def backbone_cost(config: BackboneConfig, precision: str, image_size: int = 112) -> BackboneCost:
    """Return the cost of a backbone's forward and backward pass, counted on the CPU on two and three images."""
    device = torch.device("cpu")
    model = config.build().to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    fixed = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: list[int] = []
    flops = 0.0
    for count in (2, 3):
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, found: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in fixed:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = torch.rand(count, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with FlopCounterMode(display=False) as counter:
            with hooks, autocast(precision, device):
                loss = model(images).sum()
            loss.backward()
        kept.append(sum(storages.values()))
        flops = counter.get_total_flops() / count
    channels = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
    return BackboneCost(sum(p.numel() for p in model.parameters()), channels, flops, float(kept[1] - kept[0]))


@dataclass(frozen=True)
class Sizes:
    """Of a step: ``rows`` of a rank, ``ranks``, classes ``C``, dimensions ``D``, and what the configuration chose."""

    rows: int
    ranks: int
    num_classes: int
    embedding_dim: int
    precision: str = "bf16"
    sample_rate: float = 1.0
    centers_bytes: int = 4
    states: int = 1  # of the optimizer, of each parameter
    fused: bool = True
    kept_mib: float = 128.0

    @property
    def batch(self) -> int:
        """Return the rows of all ranks."""
        return self.rows * self.ranks

    @property
    def shard(self) -> int:
        """Return the classes of the rank that holds most."""
        return -(-self.num_classes // self.ranks)


def communication(sizes: Sizes, cost: BackboneCost) -> dict[str, int]:
    """Return the bytes that each collective of a step is given or gives, on one rank."""
    if sizes.ranks == 1:
        return {}
    wide = 4
    return {
        "embeddings and labels, all-gather": sizes.batch * (sizes.embedding_dim * wide + 8),
        "log-sum-exp and target, all-reduces": 3 * sizes.batch * wide,
        "embeddings' gradient, reduce-scatter": sizes.batch * sizes.embedding_dim * wide,
        "backbone's gradients, all-reduce": cost.parameters * wide,
        "running statistics, all-reduce": 2 * cost.normalized_channels * wide,
    }


def memory(sizes: Sizes, cost: BackboneCost) -> dict[str, float]:
    """Return the bytes on a GPU by part."""
    drawn = sizes.sample_rate * sizes.shard
    centers = sizes.shard * sizes.embedding_dim * sizes.centers_bytes
    narrow = 0 if sizes.precision == "fp32" else 2
    kept = min(sizes.kept_mib * 2**20, sizes.batch * drawn * 4)
    block = min(_BLOCK, drawn)
    return {
        "backbone": (4 + narrow) * cost.parameters,
        "backbone's gradients": 4 * cost.parameters,
        "backbone's optimizer": 4 * sizes.states * cost.parameters,
        "activations": sizes.rows * cost.kept_bytes,
        "centers": centers,
        "centers' optimizer": sizes.states * centers,
        "centers' gradient": block * sizes.embedding_dim * 4 if sizes.fused else centers,
        "logits": 2 * block * sizes.batch * 4 + kept,
        "embeddings, gathered": 4 * sizes.batch * sizes.embedding_dim * 4,
        "CUDA": _CONTEXT_BYTES,
    }


def step_time(sizes: Sizes, cost: BackboneCost, cluster: Cluster) -> dict[str, float]:
    """Return the seconds of a step by part, of which only what is not hidden counts for the communication."""
    gpu = GPUS[cluster.gpu]
    rate = gpu.tflop_per_s * 1e12
    backbone = sizes.rows * cost.flops / (rate * _CONV_EFFICIENCY)
    drawn = sizes.sample_rate * sizes.shard
    products = 4 * 2 * sizes.batch * drawn * sizes.embedding_dim / (0.7 * rate)
    touched = (2 + 2 * sizes.states) * sizes.shard * sizes.embedding_dim * sizes.centers_bytes
    states = (3 + 2 * sizes.states) * 4 * cost.parameters
    sent = communication(sizes, cost)
    nodes = -(-sizes.ranks // cluster.gpus_per_node)
    link = (cluster.network_gb_per_s if nodes > 1 else gpu.node_gb_per_s) * _GB
    latency = _COLLECTIVE_S["network"] + 5e-6 * math.log2(nodes) if nodes > 1 else _COLLECTIVE_S["node"]
    share = (sizes.ranks - 1) / sizes.ranks
    gradients = sent.pop("backbone's gradients, all-reduce", 0)
    head = sum((2 if "all-reduce" in name else 1) * share * bytes_ / link + latency for name, bytes_ in sent.items())
    reduced = 2 * share * gradients / link + (latency if gradients else 0)
    return {
        "backbone": backbone,
        "head's products": products,
        "optimizer": (touched + states) / (gpu.memory_gb_per_s * _GB),
        "head's communication": head,
        "gradients' all-reduce, not hidden": max(0.0, reduced - _OVERLAP * _BACKWARD_SHARE * backbone),
    }


@dataclass(frozen=True)
class Plan:
    """What a run of these sizes costs on a cluster."""

    sizes: Sizes
    cost: BackboneCost
    cluster: Cluster

    @property
    def memory_bytes(self) -> float:
        """Return what a GPU needs."""
        return sum(memory(self.sizes, self.cost).values())

    @property
    def fits(self) -> bool:
        """Return whether a GPU has it."""
        return self.memory_bytes <= GPUS[self.cluster.gpu].memory_gb * _GB

    @property
    def images_per_s(self) -> float:
        """Return the rate of all GPUs."""
        return self.sizes.batch / sum(step_time(self.sizes, self.cost, self.cluster).values())

    @property
    def epoch_hours(self) -> float:
        """Return the hours of a pass over the data."""
        return self.cluster.images / self.images_per_s / 3600

    def with_(self, **changes: object) -> "Plan":
        """Return the plan of other sizes."""
        return replace(self, sizes=replace(self.sizes, **changes))

    def largest_rows(self) -> int:
        """Return the most rows of a GPU that fit, 0 if not even two do."""
        rows = _LARGEST_BATCH
        low = 0
        while low + 1 < rows:
            middle = (low + rows) // 2
            low, rows = (middle, rows) if self.with_(rows=middle).fits else (low, middle)
        return low if low > 1 else 0

    def ways(self) -> "dict[str, Plan]":
        """Return this plan and those with options that make the head smaller or cheaper."""
        bf16 = {"centers_bytes": 2}
        return {
            "as configured": self,
            "head.dtype=bf16": self.with_(**bf16),
            "head.sample_rate=0.1": self.with_(sample_rate=0.1),
            "both": self.with_(sample_rate=0.1, **bf16),
        }
