"""``arcdist bench step``: the whole training step, ours and a plain one, interleaved, with this machine's floors."""

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from rich import box
from rich.table import Table

from arcdist.backbones import backbone_names
from arcdist.bench import machine
from arcdist.bench.choices import check_device, check_known
from arcdist.bench.floors import Floors
from arcdist.bench.timing import Turns, spread
from arcdist.bench.whole_steps import BASELINE, STEP_METHODS, StepCase, WholeStepTimer
from arcdist.bench.workers import Workers
from arcdist.errors import ConfigError
from arcdist.runtime.cores import usable_cores

log = logging.getLogger("arcdist")

_DEMO = {"num_classes": 1000, "embedding_dim": 128}
_BUSY_SHARE = 0.25


@dataclass
class StepBenchConfig:
    """What ``arcdist bench step`` is told."""

    quick: bool = field(default=False, metadata={"help": "few methods and steps: two minutes instead of an hour"})
    backbones: list[str] = field(default_factory=lambda: ["tiny", "mbf", "r18"], metadata={"help": "by name"})
    classes: int = field(default=0, metadata={"help": "0: 1,000 with tiny as in the demo, 10,000 with others"})
    batch: int = field(default=32, metadata={"help": "global batch size"})
    ranks: int = field(default=1, metadata={"help": "number of processes that share the batch"})
    methods: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"of {' | '.join(STEP_METHODS)}; empty: all; bf16 only where there are units for it, fp16 on a GPU"
        },
    )
    rounds: int = field(default=0, metadata={"help": "turns of each method; 0: 5, with quick 3"})
    turn_s: float = field(default=0.5, metadata={"help": "seconds of steps in a turn, of one step at least"})
    limit_s: float = field(default=120.0, metadata={"help": "a method gets no other turn after so many seconds"})
    device: str = field(default="auto", metadata={"help": "auto | cpu | cuda"})
    threads: int = field(default=0, metadata={"help": "of a CPU; 0: one a core"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        check_known("methods", self.methods, STEP_METHODS)
        check_known("backbones", self.backbones, backbone_names())
        if self.batch < 2 or self.ranks < 1 or self.batch % self.ranks:
            raise ConfigError(f"batch: {self.batch}: must be 2 at least, and a multiple of ranks, {self.ranks}")
        if min(self.classes, self.rounds, self.threads) < 0 or not self.turn_s >= 0 or not self.limit_s >= 0:
            raise ConfigError("classes, rounds, threads, turn_s and limit_s: must not be negative")
        check_device(self.device)

    def case(self, backbone: str, device: str) -> StepCase:
        """Return the sizes of a backbone's step."""
        sizes = _DEMO if backbone == "tiny" else {"num_classes": 10_000, "embedding_dim": 512}
        sizes = sizes | ({"num_classes": self.classes} if self.classes else {})
        return StepCase(backbone, batch_size=self.batch, device=device, ranks=self.ranks, **sizes)


def bench_step(config: StepBenchConfig, leave: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Return the result file's content: machine, floors, rows.

    Args:
        config: what to measure.
        leave: is given what there is so far, after every backbone.
    """
    config.validate()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    threads = config.threads or usable_cores()
    result: dict[str, Any] = {"bench": "step", **machine.description(torch.device(device), threads), "rows": []}
    if (result["load_before"] or 0) > _BUSY_SHARE * usable_cores():
        log.warning("this machine is busy (load %s): do not trust the times", result["load_before"])
    with closing(Workers(Floors, device, threads, 10_000, 3)) as worker:
        result["floors"] = worker.ask("measure", config.batch, 512)
    precisions = {"fp32"} | ({"bf16", "fp16"} if device == "cuda" else set())
    precisions |= {"bf16"} if result["machine"]["cpu_bf16"] else set()
    names = config.methods or _methods(config.quick, precisions, config.ranks > 1)
    methods = [STEP_METHODS[name] for name in names]
    turns = Turns(config.rounds or (3 if config.quick else 5), config.turn_s, config.limit_s, threads)
    for backbone in config.backbones:
        case = config.case(backbone, device)
        log.info("%s, %s classes, batch size %d", backbone, f"{case.num_classes:,}", case.batch_size)
        allocators = {method.name: method.allocator for method in methods}
        measured = turns.measure(methods, case, allocators, WholeStepTimer)
        for method in methods:
            found = measured[method.name]
            row: dict[str, Any] = {"case": vars(case), "implementation": method.name}
            if found.skipped:
                result["rows"].append(row | {"skipped": found.skipped})
                continue
            row |= spread([step.total_s for step in found.steps]) | found.memory
            row |= {"steps": len(found.steps), "images_per_s": round(case.batch_size / row["median_s"], 1)}
            baselines = {"speedup": BASELINE, "speedup_same_allocator": f"{BASELINE}_tuned"}
            row["baseline"] = BASELINE
            for key, name in baselines.items():
                if name in measured and not measured[name].skipped:
                    baseline_s = spread([step.total_s for step in measured[name].steps])["median_s"]
                    row[key] = round(baseline_s / row["median_s"], 3)
            result["rows"].append(row)
        leave(result)
    return result


def _methods(quick: bool, precisions: Collection[str], several: bool) -> list[str]:
    known = [m for m in STEP_METHODS.values() if m.precision in precisions]
    known = [m for m in known if several or not m.is_of_several_ranks]
    return [m.name for m in known if not quick or m.plain or m.name in ("ours_fp32", "ours_bf16")]


def step_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return a table for each backbone."""
    tables: list[Table] = []
    for backbone in dict.fromkeys(row["case"]["backbone"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["case"]["backbone"] == backbone]
        case = rows[0]["case"]
        ranks = f"{case['ranks']} rank{'s' * (case['ranks'] > 1)}"
        sizes = f"{case['num_classes']:,} classes, batch size {case['batch_size']}, {ranks}"
        table = Table(title=f"{backbone}: {sizes}", box=box.SIMPLE, title_justify="left", caption_justify="left")
        table.add_column("step", no_wrap=True)
        for heading in ("ms", "±", "images/s", "peak MiB", "first s", "×", "× same allocator"):
            table.add_column(heading, justify="right")
        for row in rows:
            if "skipped" in row:
                table.add_row(row["implementation"], row["skipped"])
                continue
            table.add_row(
                row["implementation"],
                f"{1000 * row['median_s']:,.0f}",
                f"{(row['p80_s'] - row['p20_s']) / 2 / row['median_s']:.0%}",
                f"{row['images_per_s']:,.1f}",
                f"{row['peak_mib']:,.0f}",
                f"{row['first_s']:.1f}",
                *(f"{row[key]:.2f}" if key in row else "–" for key in ("speedup", "speedup_same_allocator")),
            )
        table.caption = f"×: times as fast as {BASELINE} with the allocator as Python starts it, and tuned like ours."
        tables.append(table)
    return tables
