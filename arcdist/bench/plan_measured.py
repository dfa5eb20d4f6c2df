"""The machine that a bench's result file was measured on, as a plan wants it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcdist.backbones import BackboneConfig
from arcdist.bench.plan_machine import Machine, floor_rates, from_rates
from arcdist.bench.plan_network import backbone_cost
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.plan_time import head_s, update_s
from arcdist.errors import DataError

_LEAST_SHARE = 0.1  # of a step that the backbone takes, however long the head was computed to take


def machine_from_bench(path: str | Path) -> Machine:
    """Return the machine that a result of ``arcdist bench plan`` or ``arcdist bench step`` was measured on.

    The former has rates of each backbone that it measured, and of its links; of the latter's whole steps the
    backbone's time is what the head, by the measured floors, does not take.

    Raises DataError where the file is no such result.
    """
    try:
        content = json.loads(Path(path).read_text())
        kind = content["bench"]
        if kind not in ("plan", "step"):
            raise DataError(f"{path}: a result of arcdist bench {kind}; a machine is told by bench plan or bench step")
        return from_rates(content["rates"][0], content["machine"]) if kind == "plan" else _from_step(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: is not what arcdist bench plan or bench step --json writes: {error!r}") from error


def _from_step(content: Mapping[str, Any]) -> Machine:
    floors = content["floors"][0] if isinstance(content["floors"], list) else content["floors"]
    ranks = max(row["case"]["ranks"] for row in content["rows"])
    given = {**floor_rates(floors), "link_per_s": 0, "latency_s": 0, "ranks": ranks}
    convolutions: dict[str, float] = {}
    backbones: dict[str, tuple[float, float]] = {}
    machine = from_rates({**given, "convolutions": {}, "backbones": {}}, content["machine"])
    for row in content["rows"]:
        precision = row["implementation"].removeprefix("ours_")
        if precision not in machine.products or "skipped" in row:
            continue
        each, flops = _backbone_of(row, precision, machine)
        backbones[f"{row['case']['backbone']}/{precision}"] = (0.0, each)
        convolutions[precision] = max(convolutions.get(precision, 0.0), flops / each)
    if not backbones:
        raise KeyError("a row ours_fp32 or ours_bf16")
    return from_rates({**given, "convolutions": convolutions, "backbones": backbones}, content["machine"])


def _backbone_of(row: Mapping[str, Any], precision: str, machine: Machine) -> tuple[float, float]:
    """Return a backbone's seconds and FLOPs for an image, from a whole step."""
    case = row["case"]
    rows, dim = case["batch_size"] // case["ranks"], case["embedding_dim"]
    sizes = Sizes(
        *(rows, case["ranks"], case["num_classes"], dim),
        precision=precision,
        products=precision,
        device=machine.device,
    )
    cost = backbone_cost(BackboneConfig(case["backbone"], dim), precision)
    rest = row["median_s"] - head_s(sizes, machine) - update_s(sizes, cost, machine)
    return max(rest, _LEAST_SHARE * row["median_s"]) / rows, cost.flops
