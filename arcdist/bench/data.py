"""``arcdist bench data``: how many images a second each loader gives, beside what decoding alone would allow."""

import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.progress import Progress
from rich.table import Table

from arcdist.bench import machine
from arcdist.bench.choices import check_known
from arcdist.bench.loaders import BATCHES, METHODS, Batches, Feed
from arcdist.bench.timing import spread
from arcdist.data.dali_loader import has_dali
from arcdist.data.datasets import RecordDataset, height_by_width
from arcdist.data.synthetic import SyntheticConfig, write_record
from arcdist.errors import ConfigError
from arcdist.runtime import allocator
from arcdist.runtime.cores import usable_cores

_SETTLE_S, _IDLE = 0.1, 0.1  # idle: a tenth of one core
_PREFETCHED = 8  # batches, more than any method has ready
CEILING, BASELINE = "decoding alone", "plain DataLoader"
_RENDERED = SyntheticConfig(identities=100, images_per_identity=10)


@dataclass
class DataBenchConfig:
    """What ``arcdist bench data`` is told."""

    file: str = field(default="", metadata={"help": "a .rec; empty: rendered faces"})
    quick: bool = field(default=False, metadata={"help": "short turns: a minute instead of several"})
    methods: list[str] = field(default_factory=list, metadata={"help": f"of {' | '.join(METHODS)}; empty: all"})
    batch_size: int = field(default=128, metadata={"help": "images of a batch"})
    threads: int = field(default=0, metadata={"help": "threads, or processes, of each loader; 0: one a core"})
    rounds: int = field(default=0, metadata={"help": "turns of each method; 0: 15, with quick 5"})
    batches: int = field(default=0, metadata={"help": "batches of a turn; 0: 60, with quick 20"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        check_known("methods", self.methods, METHODS)
        if self.batch_size < 1 or min(self.threads, self.rounds, self.batches) < 0:
            raise ConfigError("batch_size: must be at least 1; threads, rounds and batches: not negative")


@dataclass(frozen=True)
class Turn:
    """Seconds of a turn: by the clock, and of all cores that this process and its children worked."""

    wall_s: float
    cpu_s: float


def bench_data(config: DataBenchConfig) -> dict[str, Any]:
    """Return the result file's content: machine, the images' sizes, rows.

    The methods take turns, so that a machine that is busy for a while is so for all of them. A loader is measured in
    full swing: once every image has come by, which DALI's check of its first epoch waits for, and some batches after
    the others' turns.
    """
    config.validate()
    threads = config.threads or usable_cores()
    names = config.methods or [name for name in METHODS if name != "dali" or has_dali()]
    rounds, batches = config.rounds or (5 if config.quick else 15), config.batches or (20 if config.quick else 60)
    result: dict[str, Any] = {"bench": "data", **machine.description(torch.device("cpu"), threads)}
    allocator.keep_memory()  # as a run on a CPU has it
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # what normalizes is one of the threads that are counted
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        feed = Feed(config.file or _rendered(folder), config.batch_size, threads)
        result["data"] = _describe(feed.path, rendered=not config.file)
        feeding = {name: stack.enter_context(closing(METHODS[name](feed))) for name in names}
        with Progress(transient=True) as progress:
            task = progress.add_task("measuring", total=(rounds + 1) * len(names))
            for turn in range(rounds + 1):
                for name, subject in feeding.items():
                    if turn:
                        turns[name].append(_turn(subject, batches))
                    else:
                        _pass_by(subject, BATCHES + _PREFETCHED)
                    progress.advance(task)
    torch.set_num_threads(threads_before)
    result["rows"] = [_row(name, turns, batches, config.batch_size) for name in names]
    return result


def as_table(result: Mapping[str, Any]) -> Table:
    """Return the result for people."""
    data = result["data"]
    faces = f"{data['image_size']} {'rendered ' if data['rendered'] else ''}JPEGs of {data['mean_bytes']:,} bytes"
    title = f"{faces}, batch size {result['rows'][0]['case']['batch_size']}, {result['machine']['threads']} threads"
    table = Table(title=title, box=box.SIMPLE, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("loader", no_wrap=True)
    for heading in ("images/s", "±", "CPU µs an image", "of decoding alone", "by CPU", "× plain", "by CPU"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        table.add_row(
            row["implementation"],
            f"{row['images_per_s']:,.0f}",
            f"{(row['p80_s'] - row['p20_s']) / 2 / row['median_s']:.0%}",
            f"{row['cpu_us_per_image']:.0f}",
            *("" if row[key] is None else f"{row[key]:.0%}" for key in ("of_ceiling", "of_ceiling_by_cpu")),
            *("" if row[key] is None else f"{row[key]:.2f}" for key in ("speedup", "speedup_by_cpu")),
        )
    table.caption = "±: half of p20 to p80. by CPU: by the cores' own time, which a busy machine changes less."
    return table


def _rendered(folder: str) -> str:
    path = Path(folder) / "faces.rec"
    write_record(_RENDERED, path)
    return str(path)


def _describe(path: str, rendered: bool) -> dict[str, Any]:
    dataset = RecordDataset(path)
    mean = int(dataset.reader.headers(dataset.keys).payload_bytes.mean())
    found = {
        "images": len(dataset),
        "image_size": height_by_width(dataset.image_size),
        "mean_bytes": mean,
        "rendered": rendered,
    }
    dataset.close()
    return found


def _turn(feeding: Batches, batches: int) -> Turn:
    _pass_by(feeding, max(10, batches // 4))
    wall, cpu = time.perf_counter(), _cpu_s()
    _pass_by(feeding, batches)
    turn = Turn(time.perf_counter() - wall, _cpu_s() - cpu)
    _settle()
    return turn


def _settle() -> None:
    """Wait until what is made ahead is made, so that it does not take time from the next turn."""
    before, now = -1.0, _cpu_s()
    while now - before > _IDLE * _SETTLE_S:
        time.sleep(_SETTLE_S)
        before, now = now, _cpu_s()


def _pass_by(feeding: Batches, batches: int) -> None:
    for _ in range(batches):
        next(feeding)


def _cpu_s() -> float:
    """Return the cores' time of this process and of the workers that it has started and that live."""
    workers = sum(machine.cpu_s(child.pid) for child in multiprocessing.active_children() if child.pid)
    return time.process_time() + workers


def _row(name: str, turns: Mapping[str, list[Turn]], batches: int, batch_size: int) -> dict[str, Any]:
    def median(method: str, key: str) -> float:
        return float(np.median([getattr(turn, key) for turn in turns[method]]))

    def ratio(other: str, key: str) -> float | None:
        return round(median(other, key) / median(name, key), 3) if other in turns and other != name else None

    return {
        "case": {"batch_size": batch_size, "batches": batches},
        "implementation": name,
        **spread([turn.wall_s / batches for turn in turns[name]]),
        "images_per_s": round(batches * batch_size / median(name, "wall_s"), 1),
        "cpu_us_per_image": round(1e6 * median(name, "cpu_s") / batches / batch_size, 2),
        "of_ceiling": ratio(CEILING, "wall_s"),
        "of_ceiling_by_cpu": ratio(CEILING, "cpu_s"),
        "baseline": BASELINE if BASELINE in turns and name != BASELINE else None,
        "speedup": ratio(BASELINE, "wall_s"),
        "speedup_by_cpu": ratio(BASELINE, "cpu_s"),
    }
