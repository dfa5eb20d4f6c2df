"""The machine of a plan: a kind of GPU by its data sheet, or what a bench has measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arcdist.train.work import PEAK_TFLOP_PER_S

_GB = 1e9
_CONVOLUTIONS = 0.5  # of the matmul rate that a GPU's convolutions reach; an assumption
_HEAD = 0.7  # of the matmul rate that the head's products reach on a GPU; an assumption
_COPIES = 0.9  # of the data sheet's memory rate; one H200 was measured at 0.9 of it
_MATMULS = 0.8  # of the data sheet's product rate; the same card gave 0.8
_OVERLAP = 0.6  # of a GPU's passes that the backbone's communication hides behind; an assumption
_NODE_LATENCY_S = 10e-6


@dataclass(frozen=True)
class Machine:
    """What a rank computes on, in numbers and bytes a second.

    Attributes:
        name: as people call it.
        source: where the rates come from.
        device: cpu or cuda.
        products: the head's, by what is multiplied (fp32, bf16), in FLOP/s.
        convolutions: the same of a backbone's products and convolutions, by precision.
        memory_per_s: bytes read and written.
        exponentials: of the head on a CPU, passes over logits included; infinite where they cost no time of their own.
        memory_bytes: of a rank.
        node_per_s: bytes to other ranks of its node, one way.
        latency_s: of a collective in a node.
        gathering: times of half an all-reduce that an all-gather or reduce-scatter of as many bytes takes in a node.
        overlap: share of the backward pass (all passes, where weights travel) that hides the backbone's communication.
        backbones: seconds of a forward and backward pass, whatever the batch and for each image, by NAME/PRECISION.
    """

    name: str
    source: str
    device: str
    products: Mapping[str, float]
    convolutions: Mapping[str, float]
    memory_per_s: float
    memory_bytes: float
    node_per_s: float
    latency_s: float = _NODE_LATENCY_S
    exponentials: float = float("inf")
    overlap: float = _OVERLAP
    backbones: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gathering: float = 1.0


def _gpu(name: str, tflop_per_s: float, memory_gb_per_s: float, memory_gb: float, node: float, source: str) -> Machine:
    rate = tflop_per_s * 1e12
    wide = rate / 8  # of float32 products: tensor cores in tf32 where there are any
    return Machine(
        *(name, source, "cuda"),
        {"fp32": _HEAD * wide, "tf32": _HEAD * rate / 2, "bf16": _HEAD * rate},
        {"fp32": _CONVOLUTIONS * wide, "bf16": _CONVOLUTIONS * rate, "fp16": _CONVOLUTIONS * rate},
        *(memory_gb_per_s * _GB, memory_gb * _GB, node * _GB),
    )


_SHEET = "0.8 and 0.9 of the data sheet's rates"
GPUS = {
    machine.name: machine
    for machine in (
        _gpu("h200", 790, 4300, 141, 450, "products and copies measured on one card"),
        _gpu("h100", _MATMULS * PEAK_TFLOP_PER_S["H100"], _COPIES * 3350, 80, 450, _SHEET),
        _gpu("a100", _MATMULS * PEAK_TFLOP_PER_S["A100"], _COPIES * 2039, 80, 300, _SHEET),
        _gpu("v100", _MATMULS * PEAK_TFLOP_PER_S["V100"], _COPIES * 900, 32, 150, _SHEET),
    )
}


def from_rates(rates: Mapping[str, Any], described: Mapping[str, Any]) -> Machine:
    """Return the machine of rates as ``bench.plan_rates`` measures them."""
    return Machine(
        name=described.get("gpu") or described["cpu"],
        source=f"measured, {described['threads']} threads",
        device="cuda" if "gpu" in described else "cpu",
        products={name: float(rate) for name, rate in rates["products"].items()},
        convolutions={name: float(rate) for name, rate in rates["convolutions"].items()},
        memory_per_s=float(rates["memory_per_s"]),
        memory_bytes=described["memory_mib"] * 2**20 / rates["ranks"],
        node_per_s=float(rates["link_per_s"] or "inf"),
        latency_s=float(rates["latency_s"]),
        exponentials=float(rates["exponentials"]),
        gathering=float(rates.get("gathering", 1.0)),
        overlap=0.0,
        backbones={name: (float(pair[0]), float(pair[1])) for name, pair in rates["backbones"].items()},
    )


def floor_rates(floors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the head's rates from ``bench.floors``: each of the three products at its best form and block."""
    best: dict[str, dict[str, float]] = {}
    for row in floors["products"]:
        of_dtype = best.setdefault(row["dtype"], {})
        of_dtype[row["product"]] = max(of_dtype.get(row["product"], 0.0), row["gflop_per_s"] * 1e9)
    return {
        "products": {dtype: len(rates) / sum(1 / rate for rate in rates.values()) for dtype, rates in best.items()},
        "memory_per_s": floors["copy_gb_per_s"] * _GB,
        "exponentials": floors["exp_g_per_s"] * 1e9,
    }
