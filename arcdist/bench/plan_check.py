"""``arcdist bench plan``: what ``arcdist plan`` predicts beside what real steps take on this machine."""

import functools
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

from arcdist.backbones import BackboneConfig
from arcdist.bench import machine
from arcdist.bench.choices import check_known
from arcdist.bench.plan_machine import from_rates
from arcdist.bench.plan_memory import memory, memory_by_moment
from arcdist.bench.plan_network import BackboneCost, backbone_cost
from arcdist.bench.plan_probe import MemoryProbe, PlanCase, TimeProbe
from arcdist.bench.plan_rates import ROWS, measured_backbone, measured_rates
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.plan_time import Links, collectives, step_time
from arcdist.bench.timing import spread
from arcdist.bench.workers import Workers
from arcdist.errors import ConfigError
from arcdist.runtime.cores import usable_cores

_PARTS = ("memory", "time")

QUICK = (
    PlanCase("tiny", 10_000, 64),
    PlanCase("tiny", 85_742, 64, "bf16", 2),
    PlanCase("mbf", 10_000, 8, "bf16", sample_rate=0.1),
)
CASES = (
    PlanCase("tiny", 10_000, 64),
    PlanCase("tiny", 85_742, 64, "bf16"),
    PlanCase("tiny", 360_000, 64, optimizer="adamw"),
    PlanCase("tiny", 360_000, 64, ranks=2),
    PlanCase("mbf", 85_742, 16, "bf16"),
    PlanCase("mbf", 10_000, 16, "bf16", checkpoint_activations=True),
    PlanCase("mbf", 360_000, 16, sample_rate=0.1),
    PlanCase("mbf", 85_742, 32, ranks=2),
    PlanCase("r18", 85_742, 16),
    PlanCase("r18", 85_742, 8, "bf16", optimizer="adamw"),
    PlanCase("tiny", 85_742, 64, rounds=2),
    PlanCase("tiny", 360_000, 64, centers="bf16"),
    PlanCase("r18", 10_000, 32, "bf16"),
    PlanCase("tiny", 85_742, 64, "bf16", ranks=2, sample_rate=0.1),
    PlanCase("r18", 10_000, 16, "bf16", ranks=2),
    PlanCase("vit_s", 10_000, 8, optimizer="adamw", checkpoint_activations=True, ranks=2),
    PlanCase("vit_s", 10_000, 8, optimizer="adamw", checkpoint_activations=True, ranks=2, parallel="fsdp"),
)


@dataclass
class PlanBenchConfig:
    """What ``arcdist bench plan`` is told."""

    quick: bool = field(default=False, metadata={"help": "three cases instead of all"})
    parts: list[str] = field(default_factory=lambda: list(_PARTS), metadata={"help": "of memory | time"})
    steps: int = field(default=5, metadata={"help": "timed in each case"})
    threads: int = field(default=0, metadata={"help": "of all ranks together; 0: one a core"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        check_known("parts", self.parts, _PARTS)
        if self.steps < 1 or self.threads < 0:
            raise ConfigError("steps and threads: must be at least 1, and 0 or above")


def bench_plan(config: PlanBenchConfig, leave: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Return the result file's content: machine, rates, rows.

    Args:
        config: what to do.
        leave: is given what there is so far, after every case.
    """
    config.validate()
    threads = config.threads or usable_cores()
    described = machine.description(torch.device("cpu"), threads)
    cases = [case for case in (QUICK if config.quick else CASES) if case.ranks <= threads]
    result: dict[str, Any] = {"bench": "plan", **described, "rates": [], "rows": []}
    if "time" in config.parts:
        result["rates"] = [measured_rates(threads, ranks) for ranks in sorted({case.ranks for case in cases})]
    for case in cases:
        row: dict[str, Any] = {"case": asdict(case)}
        if "memory" in config.parts:
            row["memory"] = _memory(case, threads)
        if "time" in config.parts:
            rates = next(rates for rates in result["rates"] if rates["ranks"] == case.ranks)
            row["time"] = _time(case, threads, rates, described["machine"], config.steps)
        result["rows"].append(row)
        leave(result)
    return result


@functools.cache
def _cost(name: str, dim: int, checkpoint_activations: bool, precision: str) -> BackboneCost:
    return backbone_cost(BackboneConfig(name, dim, checkpoint_activations=checkpoint_activations), precision)


def _cost_of(case: PlanCase) -> BackboneCost:
    return _cost(case.backbone, case.embedding_dim, case.checkpoint_activations, case.precision)


def _sizes(case: PlanCase) -> Sizes:
    return Sizes.of(case.config(), case.ranks, case.num_classes, case.precision, "cpu")


def _memory(case: PlanCase, threads: int) -> dict[str, Any]:
    cost = _cost_of(case)
    moments = memory_by_moment(_sizes(case), cost)
    predicted = sum(memory(_sizes(case), cost).values()) / 2**20
    with closing(Workers(MemoryProbe, case, threads, ranks=case.ranks)) as workers:
        measured = max(workers.ask("peak_mib"))
    fullest = max(moments, key=lambda name: sum(moments[name].values()))
    return _compared(predicted, measured, "mib") | {"moment": fullest}


def _time(
    case: PlanCase, threads: int, rates: dict[str, Any], described: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """Compare times; the backbone's passes are measured just before, and left among the rates."""
    cost = _cost_of(case)
    name = f"{case.backbone}/{case.precision}"
    passes_s, rate = measured_backbone(case.backbone, case.embedding_dim, case.precision, threads, case.ranks)
    rates["backbones"][name] = passes_s
    rates["convolutions"][case.precision] = max(rates["convolutions"].get(case.precision, 0.0), rate)
    rank = from_rates(rates, described)
    parts = step_time(_sizes(case), cost, rank, Links(case.ranks, float("inf")), case.backbone)
    with closing(Workers(TimeProbe, case, threads, ranks=case.ranks)) as workers:
        seconds = [max(step) for step in zip(*workers.ask("seconds", steps))]
        counted = workers.ask("communicated")[0] if case.ranks > 1 else {}
    found = _compared(sum(parts.values()), float(np.median(seconds)), "s") | {"parts_s": parts, "passes_s": passes_s}
    found |= spread(seconds)
    if counted:
        said = sum(one.bytes for one in collectives(_sizes(case), cost))
        found |= {"communicated_bytes": sum(counted.values()), "predicted_bytes": said}
    return found


def _compared(predicted: float, measured: float, unit: str) -> dict[str, float]:
    numbers = {f"predicted_{unit}": predicted, f"measured_{unit}": measured}
    return {name: round(value, 4) for name, value in numbers.items()} | {"ratio": round(predicted / measured, 3)}


def check_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the table of all cases."""
    table = Table(title="arcdist plan against real steps", box=box.SIMPLE, title_justify="left", caption_justify="left")
    table.add_column("step", overflow="fold")
    for heading in ("MiB said", "is", "×", "ms said", "is", "×"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        cells = []
        for part, unit, factor in (("memory", "mib", 1), ("time", "s", 1000)):
            found = row.get(part)
            numbers = [] if found is None else [found[f"predicted_{unit}"] * factor, found[f"measured_{unit}"] * factor]
            cells += [f"{number:,.0f}" for number in numbers] + [f"{found['ratio']:.2f}"] if found else ["–"] * 3
        table.add_row(_words(row["case"]), *cells)
    rows = " and ".join(map(str, ROWS))
    table.caption = f"Rates: floors, measured first; of the backbone, passes of {rows} images just before each step."
    return [table]


def _words(case: Mapping[str, Any]) -> str:
    plain = asdict(PlanCase("", 0, 0))
    told = [f"{case['backbone']}, {case['num_classes']:,} classes, batch {case['batch_size']}, {case['precision']}"]
    rest = [name for name in plain if name not in ("backbone", "num_classes", "batch_size", "precision")]
    told += [f"{name.replace('_', ' ')} {case[name]}" for name in rest if case[name] != plain[name]]
    return ", ".join(told)
