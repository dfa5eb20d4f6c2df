"""``arcdist bench parts``: backbone, optimizer and communication alone, each beside a plain way and a floor."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from rich import box
from rich.table import Table

from arcdist.backbones import backbone_names
from arcdist.bench import machine
from arcdist.bench.choices import check_device, check_known
from arcdist.bench.floors import Floors
from arcdist.bench.part import Part, PartCase, PartMethod
from arcdist.bench.part_backbone import BACKBONE_PART
from arcdist.bench.part_communication import COLLECTIVES, COMMUNICATION_PART
from arcdist.bench.part_optimizer import OPTIMIZER_PART
from arcdist.bench.timing import Measured, Turns, spread
from arcdist.bench.workers import Workers
from arcdist.errors import ConfigError
from arcdist.optim.optimizers import OPTIMIZERS
from arcdist.runtime import collectives
from arcdist.runtime.cores import usable_cores
from arcdist.runtime.world import RuntimeConfig, open_world

log = logging.getLogger("arcdist")

PARTS = {"backbone": BACKBONE_PART, "optimizer": OPTIMIZER_PART, "communication": COMMUNICATION_PART}
_CHECKED_ROWS, _CHECKED_NET = 4, "tiny"
_FLOOR_CLASSES, _FLOOR_REPEATS = 10_000, 3
_BUSY_SHARE = 0.25
_EMBEDDING_DIM = 512
_FLOOR_WORDS = {
    "backbone": "the best product",
    "optimizer": "adding one tensor to another in place",
    "communication": "a copy",
}


@dataclass
class PartsConfig:
    """What ``arcdist bench parts`` is told."""

    quick: bool = field(default=False, metadata={"help": "batches of 8 and short turns: two minutes"})
    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={"help": f"of {' | '.join(PARTS)}"})
    backbones: list[str] = field(default_factory=lambda: ["tiny", "mbf", "r18"], metadata={"help": "by name"})
    net: str = field(default="r50", metadata={"help": "whose weights are updated, and whose gradient is sent"})
    batch: int = field(default=0, metadata={"help": "of a backbone's passes; 0: 32, with quick 8"})
    rows: int = field(default=128, metadata={"help": "embeddings of a rank that are sent"})
    ranks: int = field(default=2, metadata={"help": "gloo processes that communicate"})
    rounds: int = field(default=0, metadata={"help": "turns of each method; 0: 5, with quick 2"})
    turn_s: float = field(default=0.5, metadata={"help": "seconds of a turn, of one step at least"})
    limit_s: float = field(default=60.0, metadata={"help": "a method gets no other turn after so many seconds"})
    device: str = field(default="auto", metadata={"help": "auto | cpu | cuda; communication is measured on the CPU"})
    threads: int = field(default=0, metadata={"help": "of a CPU; 0: one a core"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        check_known("parts", self.parts, PARTS)
        check_known("backbones", self.backbones, backbone_names())
        check_known("net", [self.net], backbone_names())
        if not self.parts or not self.backbones:
            raise ConfigError("parts, backbones: name one at least")
        if self.batch == 1 or min(self.batch, self.rounds, self.threads) < 0 or not self.turn_s >= 0:
            raise ConfigError("batch, rounds, threads, turn_s: must not be negative, and batch not 1 (BatchNorm)")
        if not self.limit_s >= 0 or self.rows < 1 or self.ranks < 2:
            raise ConfigError("limit_s: must not be negative; rows: must be 1 at least, and ranks 2")
        check_device(self.device)

    def cases(self, device: str) -> Iterator[PartCase]:
        """Yield what is measured."""
        batch = self.batch or (8 if self.quick else 32)
        for part in self.parts:
            if part == "backbone":
                for net in self.backbones:
                    yield PartCase(part, net, net, batch, device)
            elif part == "optimizer":
                for name in OPTIMIZERS:
                    yield PartCase(part, name, self.net, 0, device)
            else:
                for name in COLLECTIVES:
                    yield PartCase(part, name, self.net, self.rows, "cpu", self.ranks)


class PartChecks:
    """Holds methods against their references, at a small size.

    Args:
        device: cpu or cuda.
        threads: of all ranks.
        ranks: processes of this world.
    """

    def __init__(self, device: str, threads: int, ranks: int) -> None:
        open_world(RuntimeConfig(device, max(1, threads // ranks)))

    def error(self, case: PartCase, name: str) -> float:
        """Return the relative error of a method."""
        net = case.net if case.part == "backbone" else _CHECKED_NET
        method = PARTS[case.part].method(case.what, name)
        return method.build(replace(case, net=net, rows=_CHECKED_ROWS)).error()


@dataclass(frozen=True)
class PartSeconds:
    """One step of a part."""

    total_s: float


class PartTimer:
    """A part of a step, in a process of its own; its first step, which touches memory, is not timed."""

    def __init__(self, name: str, case: PartCase, allocator: str, threads: int) -> None:
        each = max(1, threads // case.ranks)
        self._device = open_world(RuntimeConfig(case.device, each, keep_memory=allocator == "tuned")).device
        self._subject = PARTS[case.part].method(case.what, name).build(case)
        self._one()

    def turn(self, steps: int) -> list[PartSeconds]:
        """Return the times of so many steps."""
        return [self._one() for _ in range(steps)]

    def memory(self) -> dict[str, float]:
        """Return the process's peak."""
        return {"peak_mib": round(machine.peak_mib(self._device), 1)}

    def _one(self) -> PartSeconds:
        self._subject.prepare()
        collectives.barrier()
        start = self._now()
        self._subject.step()
        return PartSeconds(self._now() - start)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def bench_parts(config: PartsConfig, leave: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Return the result file's content: machine, floors, rows.

    A method that does not give what its reference gives, at a small size, is not timed; its row says so.

    Args:
        config: what to measure.
        leave: is given what there is so far, after every case.
    """
    config.validate()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    threads = config.threads or usable_cores()
    result: dict[str, Any] = {"bench": "parts", **machine.description(torch.device(device), threads), "rows": []}
    if (result["load_before"] or 0) > _BUSY_SHARE * usable_cores():
        log.warning("this machine is busy (load %s): do not trust the times", result["load_before"])
    floors: dict[str, Any] = {}
    for kind in dict.fromkeys(case.device for case in config.cases(device)):
        with closing(Workers(Floors, kind, threads, _FLOOR_CLASSES, _FLOOR_REPEATS)) as worker:
            floors[kind] = worker.ask("measure", config.batch or 32, _EMBEDDING_DIM)[0]
    result["floors"] = floors
    bf16 = device == "cuda" or result["machine"]["cpu_bf16"]
    turns = Turns(config.rounds or (2 if config.quick else 5), config.turn_s, config.limit_s, threads)
    for case in config.cases(device):
        log.info("%s: %s", case.part, case.what)
        part = PARTS[case.part]
        methods = [method for method in part.methods(case.what) if bf16 or method.precision != "bf16"]
        errors = check(case, methods, threads)
        right = [method for method in methods if errors[method.name] < method.error_limit]
        measured = turns.measure(right, case, {method.name: "tuned" for method in right}, PartTimer)
        for method in methods:
            row = {"case": vars(case), "implementation": method.name, "error": errors[method.name]}
            wrong = Measured(skipped=f"not timed: an error of {errors[method.name]:.1e} against the reference")
            found = measured.get(method.name, wrong)
            plain = measured.get(methods[0].name, wrong)
            result["rows"].append(row | _figures(part, case, method, found, plain, floors[case.device]))
        leave(result)
    return result


def check(case: PartCase, methods: Sequence[PartMethod], threads: int) -> dict[str, float]:
    """Return the relative error of each method, on its worst rank, NaN where one has it."""
    with closing(Workers(PartChecks, case.device, threads, case.ranks, ranks=case.ranks)) as ranks:
        errors = {method.name: torch.tensor(ranks.ask("error", case, method.name)) for method in methods}
    return {name: float(of_ranks.max()) for name, of_ranks in errors.items()}


def _figures(
    part: Part, case: PartCase, method: PartMethod, found: Measured, plain: Measured, floors: Mapping[str, Any]
) -> dict[str, Any]:
    if found.skipped:
        return {"skipped": found.skipped}
    figures: dict[str, Any] = spread([step.total_s for step in found.steps]) | found.memory
    figures |= {"steps": len(found.steps)} | part.floor(case, method, floors)
    if "moved_bytes" in figures:
        figures["gb_per_s"] = round(figures["moved_bytes"] / figures["median_s"] / 1e9, 3)
    else:
        figures["gflop_per_s"] = round(figures["operations"] / figures["median_s"] / 1e9, 1)
        figures["images_per_s"] = round(case.rows / figures["median_s"], 1)
    if "floor_seconds" in figures:
        figures["floor_share"] = round(figures["floor_seconds"] / figures["median_s"], 3)
    if not plain.skipped:
        figures["speedup"] = round(spread([s.total_s for s in plain.steps])["median_s"] / figures["median_s"], 3)
    return figures


def parts_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return a table for each part."""
    return [
        _table(part, [row for row in result["rows"] if row["case"]["part"] == part])
        for part in dict.fromkeys(row["case"]["part"] for row in result["rows"])
    ]


def _table(part: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    case = rows[0]["case"]
    sizes = f"batch size {case['rows']}" if part == "backbone" else f"weights of {case['net']}"
    if part == "communication":
        sizes += f", {case['rows']} embeddings a rank, {case['ranks']} ranks"
    table = Table(title=f"{part}: {sizes}", box=box.SIMPLE, title_justify="left", caption_justify="left")
    unit = "GFLOP/s" if part == "backbone" else "GB/s"
    table.add_column("what", no_wrap=True)
    table.add_column("by", no_wrap=True)
    for heading in ("ms", "±", unit, "of floor", "×", "error"):
        table.add_column(heading, justify="right")
    for row in rows:
        names = (row["case"]["what"], row["implementation"])
        if "skipped" in row:
            table.add_row(*names, row["skipped"])
            continue
        table.add_row(
            *names,
            f"{1000 * row['median_s']:,.2f}",
            f"{(row['p80_s'] - row['p20_s']) / 2 / row['median_s']:.0%}",
            f"{row.get('gflop_per_s', row.get('gb_per_s')):,.1f}",
            f"{row['floor_share']:.0%}" if "floor_share" in row else "–",
            f"{row['speedup']:.2f}" if "speedup" in row else "–",
            f"{row['error']:.0e}",
        )
    floor = _FLOOR_WORDS[part]
    table.caption = f"of floor: 100% would be as fast as {floor} on this machine. ×: times as fast as the first."
    return table
