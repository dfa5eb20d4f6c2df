"""``arcdist bench compare``: what is slower or faster in one bench file than in another, and beyond what spread."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich import box
from rich.table import Table

from arcdist.errors import ConfigError

_NOT_MEASURED = {"median_s", "p20_s", "p80_s", "limit_s", "turn_s", "cut_s", "rank_wait_s"}


@dataclass
class CompareConfig:
    """What ``arcdist bench compare`` is told."""

    before: str = field(default=MISSING, metadata={"help": "a bench's file"})
    after: str = field(default=MISSING, metadata={"help": "another file of the same bench, the newer one"})
    at_least: float = field(
        default=0.05, metadata={"help": "a change of the median by a smaller share is none, whatever the spread"}
    )
    single: float = field(
        default=0.25, metadata={"help": "spread, as a share, that a time is given which was measured only once"}
    )
    fail: bool = field(default=True, metadata={"help": "exit with 1 where something is slower"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for name in ("at_least", "single"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}: must be a share, in [0, 1)")


@dataclass(frozen=True)
class Time:
    """Seconds that something took: the median, and what a fifth of the turns stayed below and went above."""

    median_s: float
    p20_s: float
    p80_s: float


def bench_compare(config: CompareConfig) -> dict[str, Any]:
    """Return every time that either file knows, with its verdict: slower, faster, same, or only in one file.

    Slower is what in ``after`` stayed above, in four of five turns, what ``before`` stayed below in four of five: its
    20th percentile is above the other's 80th, and the medians differ by ``at_least``. Faster is the same, turned.

    Errors: ConfigError for files that are none of a bench's, or of two benches, or share no time: the command then
    ends with 2, for 1 says that something is slower.
    """
    config.validate()
    before, after = _read(config.before), _read(config.after)
    if before.get("bench") != after.get("bench"):
        raise ConfigError(
            f"{config.before} is of the bench {before.get('bench')!r} and {config.after} of {after.get('bench')!r}: "
            "two files of one bench can be compared"
        )
    old, new = dict(_times(before, config.single)), dict(_times(after, config.single))
    if not old.keys() & new.keys():
        raise ConfigError(f"{config.before}, {config.after}: no time is in both; were they measured with other sizes?")
    rows = [_row(name, old.get(name), new.get(name), config.at_least) for name in old | new]
    return {
        "bench": "compare",
        "before": {"file": config.before} | _origin(before),
        "after": {"file": config.after} | _origin(after),
        "same_machine": before.get("machine") == after.get("machine"),
        "slower": sum(row["verdict"] == "slower" for row in rows),
        "rows": rows,
    }


def _row(name: str, old: Time | None, new: Time | None, at_least: float) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name}
    if old is None or new is None:
        return row | {"verdict": "only in the first file" if new is None else "only in the second file"}
    times = new.median_s / old.median_s
    verdict = "same"
    if new.p20_s > old.p80_s and times >= 1 + at_least:
        verdict = "slower"
    elif new.p80_s < old.p20_s and times <= 1 / (1 + at_least):
        verdict = "faster"
    return row | {"before": vars(old), "after": vars(new), "times_as_long": round(times, 4), "verdict": verdict}


def _read(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no JSON object, so it is no file that arcdist bench BENCH --json wrote")
    return content


def _origin(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: content.get(key) for key in ("commit", "date", "machine", "load_before", "versions")}


def _times(node: Any, single: float, name: str = "") -> Iterator[tuple[str, Time]]:
    """Yield each time below a node of a result, by a name that tells its case and its place."""
    if isinstance(node, list):
        for item in node:
            if isinstance(item, dict) and "implementation" in item:
                yield from _times(item, single, _joined(name, _words(item)))
        return
    if not isinstance(node, dict):
        return
    median = node.get("median_s")
    if _is_time(median):
        yield name, _time(median, node.get("p20_s"), node.get("p80_s"), single)
    elif isinstance(median, dict):  # medians of lists that stand beside them
        for kind, seconds in node["seconds"].items():
            if isinstance(seconds, list) and seconds:
                p20, p50, p80 = np.percentile(seconds, [20, 50, 80]).tolist()
                yield _joined(name, kind), _time(p50, p20, p80, single)
    for key, value in node.items():
        if isinstance(value, dict | list) and key not in ("median_s", "seconds", "case"):
            yield from _times(value, single, name if key == "rows" else _joined(name, key))
        elif key.endswith("_s") and not key.endswith("_per_s") and key not in _NOT_MEASURED and _is_time(value):
            yield _joined(name, key), _time(value, None, None, single)


def _time(median: float, p20: Any, p80: Any, single: float) -> Time:
    if p20 is None or p80 is None or p20 == p80:
        return Time(median, median * (1 - single), median * (1 + single))
    return Time(median, p20, p80)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _words(row: Mapping[str, Any]) -> str:
    case = row.get("case", {})
    sizes = ", ".join(f"{key} {value}" for key, value in case.items()) if isinstance(case, dict) else str(case)
    return _joined(row["implementation"], sizes)


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def comparison_table(result: Mapping[str, Any]) -> Table:
    """Return what changed first, and a line for all that did not."""
    table = Table(title="times of two bench files", box=box.SIMPLE, title_justify="left", caption_justify="left")
    table.add_column("what", overflow="fold")
    for heading in ("before ms", "±", "after ms", "±", "× as long", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [row for row in result["rows"] if "times_as_long" in row]
    for row in sorted(rows, key=lambda row: -row["times_as_long"]):
        table.add_row(
            row["what"],
            *(cell for side in ("before", "after") for cell in _cells(row[side])),
            f"{row['times_as_long']:.2f}",
            "" if row["verdict"] == "same" else row["verdict"],
        )
    notes = [f"{result['slower']} slower of {len(rows)}. ±: half of p20 to p80, or what a single time is given."]
    if alone := len(result["rows"]) - len(rows):
        notes.append(f"{alone} times are in one file only.")
    if not result["same_machine"]:
        notes.append("The files are of DIFFERENT MACHINES, or of other numbers of threads.")
    table.caption = "\n".join(notes)
    return table


def _cells(time: Mapping[str, float]) -> tuple[str, str]:
    share = (time["p80_s"] - time["p20_s"]) / 2 / time["median_s"]
    return f"{1000 * time['median_s']:,.2f}", f"{share:.0%}"
