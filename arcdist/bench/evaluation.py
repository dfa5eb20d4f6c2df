"""How long the protocols take at the size of the benchmarks, from embeddings to figures, and how much memory."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from arcdist.bench import machine
from arcdist.bench.timing import spread
from arcdist.bench.workers import Workers
from arcdist.errors import ConfigError
from arcdist.evaluate.exact_rates import all_to_all
from arcdist.evaluate.ijb import verify_templates
from arcdist.evaluate.ijb_lists import TemplatePairs
from arcdist.evaluate.megaface import score_megaface
from arcdist.evaluate.templates import Templates
from arcdist.evaluate.verification import verify
from arcdist.runtime.cores import usable_cores

DIM = 512
_CPU = torch.device("cpu")
_QUICK = 0.02  # of the images, and of the pairs
_ROWS_AT_ONCE = 16384


@dataclass
class EvaluateBenchConfig:
    """What is measured, and where."""

    cases: list[str] = field(default_factory=list, metadata={"help": "some of them; empty: all"})
    quick: bool = field(default=False, metadata={"help": f"{_QUICK:.0%} of the images and pairs: seconds, no figures"})
    rounds: int = field(default=3, metadata={"help": "times that each is done; the first case ten times as often"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0: all of this machine's cores"})
    folder: str = field(default="", metadata={"help": "for a gallery of 2 GB; empty: the system's for temporary files"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a value that cannot be right."""
        unknown = sorted(set(self.cases) - CASES.keys())
        if unknown:
            raise ConfigError(f"cases: {unknown[0]!r}: must be some of {', '.join(CASES)}")
        if self.rounds < 1 or self.threads < 0:
            raise ConfigError(f"rounds: {self.rounds}, threads: {self.threads}: must be at least 1 and 0")


@dataclass(frozen=True)
class Case:
    """A protocol at a benchmark's size, and what it may take on two cores."""

    sizes: dict[str, int]
    prepare: Callable[[dict[str, int], Path], Callable[[], Any]]
    """Makes the input of these sizes, with a folder for what is large; what it returns is timed."""
    limit_s: float
    limit_mib: int = 4096
    rounds: int = 1
    """For one round of the configuration."""

    def sizes_of(self, quick: bool) -> dict[str, int]:
        """Return the sizes, or small ones."""
        return {name: max(100, round(_QUICK * size)) if quick else size for name, size in self.sizes.items()}


class Work:
    """A case's input, in a process of its own."""

    def __init__(self, name: str, sizes: dict[str, int], threads: int, folder: str) -> None:
        torch.set_num_threads(threads)
        self._run = CASES[name].prepare(sizes, Path(folder))
        machine.reset_peak(_CPU)

    def seconds(self) -> float:
        """Return how long it took once."""
        begun = time.perf_counter()
        self._run()
        return time.perf_counter() - begun

    def peak_mib(self) -> float:
        """Return the most that the process has held since its input was made, the input and torch included."""
        return round(machine.peak_mib(_CPU), 1)


def bench_evaluate(config: EvaluateBenchConfig, so_far: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return a row a case: sizes, seconds, peak memory, and what they may be; ``so_far`` sees each new row."""
    config.validate()
    threads = config.threads or usable_cores()
    result: dict[str, Any] = {
        "bench": "evaluate",
        **machine.description(_CPU, threads),
        "quick": config.quick,
        "rows": [],
    }
    names = config.cases or list(CASES)
    for name in track(names, "measuring", console=Console(stderr=True), disable=not config.progress):
        case = CASES[name]
        sizes = case.sizes_of(config.quick)
        with tempfile.TemporaryDirectory(dir=config.folder or None) as folder:
            work = Workers(Work, name, sizes, threads, folder)
            try:
                times = [work.ask("seconds")[0] for _ in range(config.rounds * case.rounds)]
                peak = work.ask("peak_mib")[0]
            finally:
                work.close()
        row = {"case": {"name": name, **sizes, "dim": DIM}, "implementation": "arcdist", **spread(times)}
        result["rows"].append(row | {"peak_mib": peak, "limit_s": case.limit_s, "limit_mib": case.limit_mib})
        so_far(result)
    return result


def evaluation_table(result: dict[str, Any]) -> Table:
    """Return the rows for people."""
    table = Table(
        title="Protocols, from embeddings to figures", box=box.SIMPLE, title_justify="left", title_style="bold"
    )
    for heading in ("protocol", "size"):
        table.add_column(heading)
    for heading in ("seconds", "at most", "peak MiB", "at most"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        sizes = ", ".join(f"{size:,} {name}" for name, size in row["case"].items() if name not in ("name", "dim"))
        limits = (f"{row['limit_s']:g}", f"{row['limit_mib']:,}") if not result["quick"] else ("", "")
        cells = (f"{row['median_s']:.3g}", limits[0], f"{row['peak_mib']:,.0f}", limits[1])
        table.add_row(row["case"]["name"], sizes, *cells)
    return table


def _pairs(sizes: dict[str, int], folder: Path) -> Callable[[], Any]:
    same = np.tile(np.repeat([True, False], sizes["pairs"] // 20), 10)
    people = torch.arange(len(same)).repeat_interleave(2)
    people[1::2] += torch.from_numpy(~same) * len(same)  # the second image of an impostor pair is of another person
    embeddings = _faces(people).numpy()
    return lambda: verify(embeddings, same)


def _template_pairs(sizes: dict[str, int], folder: Path) -> Callable[[], Any]:
    random = np.random.default_rng(0)
    gallery = sizes["templates"] * 3531 // 23124
    subject = np.concatenate([np.arange(gallery), random.integers(gallery, size=sizes["templates"] - gallery)])
    second = random.integers(gallery, sizes["templates"], sizes["pairs"])
    first = (subject[second] + random.integers(1, gallery, sizes["pairs"])) % gallery  # another person
    first[: sizes["genuine"]] = subject[second[: sizes["genuine"]]]
    order = np.argsort(first, kind="stable")  # the list goes through the gallery
    pairs = TemplatePairs(first[order], second[order], (subject[first] == subject[second])[order])
    embeddings = torch.nn.functional.normalize(_faces(torch.from_numpy(subject)))
    templates = Templates(np.arange(sizes["templates"]), embeddings)
    return lambda: verify_templates(templates, pairs)


def _megaface(sizes: dict[str, int], folder: Path) -> Callable[[], Any]:
    people = torch.arange(sizes["probes"]) % max(2, sizes["probes"] // 44)
    probes = _faces(people)
    generator = torch.Generator().manual_seed(1)
    with open(folder / "gallery", "wb") as file:
        for start in range(0, sizes["distractors"], _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, sizes["distractors"] - start)
            torch.randn(rows, DIM, generator=generator).numpy().tofile(file)
    gallery = torch.from_numpy(np.memmap(folder / "gallery", np.float32, "c").reshape(-1, DIM))
    names = [str(person) for person in people.tolist()]
    return lambda: score_megaface(probes, names, gallery)


def _all_to_all(sizes: dict[str, int], folder: Path) -> Callable[[], Any]:
    labels = np.random.default_rng(0).permutation(sizes["images"]) // 5
    embeddings = _faces(torch.from_numpy(labels))
    return lambda: all_to_all(embeddings, labels)


def _faces(people: torch.Tensor) -> torch.Tensor:
    """Return embeddings ``[N, D]``: about a cosine of 0.5 within a person, of 0 between people."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(int(people.max()) + 1, DIM, generator=generator)
    rows = torch.randn(len(people), DIM, generator=generator)
    for part in torch.arange(len(people)).split(_ROWS_AT_ONCE):
        rows[part] += centers[people[part]]
    return rows


CASES = {
    "verification": Case({"pairs": 6000}, _pairs, 0.2, rounds=10),
    "ijbc_11": Case({"templates": 23124, "pairs": 15658489, "genuine": 19557}, _template_pairs, 60),
    "megaface": Case({"probes": 3530, "distractors": 1000000}, _megaface, 120),
    "all_to_all": Case({"images": 200000}, _all_to_all, 600),
}
