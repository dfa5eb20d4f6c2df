"""``arcdist bench head``: the head's whole step, ours and others', interleaved, with its floors and its errors."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch

from arcdist.bench import machine
from arcdist.bench.cases import METHODS, Case, Method
from arcdist.bench.choices import check_device, check_known
from arcdist.bench.floors import Floors, products_s
from arcdist.bench.gradients import GradientErrors, target_cosine
from arcdist.bench.timing import ALLOCATORS, Measured, Turns, spread
from arcdist.bench.workers import Workers
from arcdist.errors import ConfigError
from arcdist.runtime.cores import usable_cores

log = logging.getLogger("arcdist")

_CLASSES, _QUICK_CLASSES = [85_742, 360_232, 1_000_000, 2_000_000, 10_000_000], [20_000]
_FLOOR_REPEATS = 3


@dataclass
class HeadBenchConfig:
    """What ``arcdist bench head`` is told."""

    quick: bool = field(default=False, metadata={"help": "few classes and short turns: seconds instead of an hour"})
    classes: list[int] = field(
        default_factory=list,
        metadata={"help": f"numbers of classes; empty: {','.join(map(str, _CLASSES))}, with quick {_QUICK_CLASSES[0]}"},
    )
    batch: list[int] = field(default_factory=lambda: [256], metadata={"help": "global batch sizes"})
    ranks: list[int] = field(default_factory=lambda: [1], metadata={"help": "numbers of processes that share the head"})
    embedding_dim: int = field(default=512, metadata={"help": "of embeddings and centers"})
    methods: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"of {' | '.join(METHODS)}; empty: all, but bf16 products only where there are units for them"
        },
    )
    allocators: list[str] = field(
        default_factory=lambda: list(ALLOCATORS), metadata={"help": f"of {' | '.join(ALLOCATORS)}; CPU only"}
    )
    rounds: int = field(default=0, metadata={"help": "turns of each method; 0: 5, with quick 3"})
    turn_s: float = field(default=0.5, metadata={"help": "seconds of steps in a turn, of one step at least"})
    limit_s: float = field(default=120.0, metadata={"help": "a method gets no other turn after so many seconds"})
    gradient_classes: int = field(default=10_007, metadata={"help": "classes that gradient errors are measured with"})
    gradient_batch: int = field(default=64, metadata={"help": "batch size that they are measured with"})
    device: str = field(default="auto", metadata={"help": "auto | cpu | cuda"})
    threads: int = field(default=0, metadata={"help": "of a CPU; 0: one a core"})
    json: str = field(default="", metadata={"help": "file for the result"})
    pictures: str = field(default="", metadata={"help": "folder for pictures of time and memory over classes"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for name, values in (("classes", self.classes), ("batch", self.batch), ("ranks", self.ranks)):
            if any(value < 1 for value in values):
                raise ConfigError(f"{name}: {','.join(map(str, values))}: must be at least 1, each")
        check_known("methods", self.methods, METHODS)
        check_known("allocators", self.allocators, ALLOCATORS)
        if not (self.batch and self.ranks and self.allocators):
            raise ConfigError("batch, ranks and allocators: name one at least")
        if uneven := [(rows, ranks) for rows in self.batch for ranks in self.ranks if rows % ranks]:
            raise ConfigError("batch: {}: must be a multiple of ranks, {}".format(*uneven[0]))
        for name in ("embedding_dim", "gradient_classes", "gradient_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}: must be at least 1")
        if self.rounds < 0 or self.threads < 0 or not self.turn_s >= 0 or not self.limit_s >= 0:
            raise ConfigError("rounds, threads, turn_s and limit_s: must not be negative")
        check_device(self.device)

    def resolved_device(self) -> str:
        """Return cpu or cuda."""
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


def bench_head(config: HeadBenchConfig, leave: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Return the result file's content: machine, floors, gradient errors, rows.

    A method whose loss or gradients are wrong is not timed; one that does not fit into memory is left out; its row
    says so.

    Args:
        config: what to measure.
        leave: is given what there is so far, after every case.
    """
    config.validate()
    device, threads = config.resolved_device(), config.threads or usable_cores()
    classes = config.classes or (_QUICK_CLASSES if config.quick else _CLASSES)
    result: dict[str, Any] = {"bench": "head", **machine.description(torch.device(device), threads)}
    slow_bf16 = device == "cpu" and not result["machine"]["cpu_bf16"]
    fit = [name for name, method in METHODS.items() if not (method.bf16 and slow_bf16)]
    methods = [METHODS[name] for name in config.methods or fit]
    if (result["load_before"] or 0) > usable_cores() / 4:
        log.warning("this machine is busy (load %s): do not trust the times", result["load_before"])
    with closing(Workers(Floors, device, threads, max(classes), _FLOOR_REPEATS)) as worker:
        log.info("the best rates of this machine")
        floors = {rows: worker.ask("measure", rows, config.embedding_dim)[0] for rows in config.batch}
    result["floors"] = list(floors.values())

    few_classes = min(config.gradient_classes, max(classes))
    log.info("gradients against float64, %s classes", f"{few_classes:,}")
    errors = _gradient_errors(Case(few_classes, config.gradient_batch, config.embedding_dim, device), methods, threads)
    result["gradient_errors"], result["rows"] = errors, []
    wrong = {
        row["implementation"]: f"not timed: an error of {row['worst']:.1e} against float64"
        for row in errors
        if not row["worst"] < METHODS[row["implementation"]].error_limit
    }
    turns = Turns(config.rounds or (3 if config.quick else 5), config.turn_s, config.limit_s, threads)
    allocators = config.allocators if device == "cpu" else ["as_started"]
    for num_classes, rows, ranks, allocator in product(classes, config.batch, config.ranks, allocators):
        log.info("%s classes, batch size %d, ranks %d, %s", f"{num_classes:,}", rows, ranks, allocator)
        case = Case(num_classes, rows, config.embedding_dim, device, ranks)
        able = [method for method in methods if method.distributed or ranks == 1]
        timed = [method for method in able if method.name not in wrong]
        measured = turns.measure(timed, case, {method.name: allocator for method in timed})
        measured |= {method.name: Measured(skipped=wrong[method.name]) for method in able if method.name in wrong}
        for method in able:
            sizes = {**_sizes(case, method), "allocator": allocator}
            row = {"case": sizes, "implementation": method.name, **_figures(method, case, measured, floors[rows])}
            result["rows"].append(row)
        leave(result)
    return result


def _gradient_errors(case: Case, methods: Sequence[Method], threads: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with closing(Workers(GradientErrors, case, threads)) as worker:
        for method in methods:
            (errors,) = worker.ask("measure", method.name)
            sizes = {**_sizes(case, method), "target_cosine": round(target_cosine(method.m2), 4)}
            worst = float(np.max([*errors.values()]))  # NaN, if one is
            rows.append({"case": sizes, "implementation": method.name, **errors, "worst": worst})
    return rows


def _figures(method: Method, case: Case, measured: Mapping[str, Measured], floors: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result's row says of a method in a case."""
    found, baseline = measured[method.name], measured.get(method.baseline)
    if found.skipped:
        return {"skipped": found.skipped}
    figures: dict[str, Any] = {**spread([step.total_s for step in found.steps]), "steps": len(found.steps)}
    for part in ("forward", "backward", "update"):
        figures[part] = spread([getattr(step, f"{part}_s") for step in found.steps])
    figures |= {**found.memory, "baseline": None, "speedup": None}
    if baseline and not baseline.skipped:
        baseline_s = spread([step.total_s for step in baseline.steps])["median_s"]
        figures |= {"baseline": method.baseline, "speedup": round(baseline_s / figures["median_s"], 3)}
    if seconds := products_s(method, case, floors):
        figures |= {"products_s": seconds, "product_share": round(seconds / figures["median_s"], 3)}
    return figures


def _sizes(case: Case, method: Method) -> dict[str, Any]:
    return {
        "num_classes": case.num_classes,
        "batch_size": case.batch_size,
        "embedding_dim": case.embedding_dim,
        "dtype": "float32",
        "margin": f"arcface {method.m2}" if method.m2 else "none",
        "device": case.device,
        "ranks": case.ranks,
    }
