"""``arcdist bench picture``: one step of every rank, drawn from the traces that ``train.profile`` leaves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from arcdist.errors import ConfigError, DataError

PARTS = ("data", "backbone forward", "head", "head backward", "backbone backward", "reduce", "optimizer")
_COLLECTIVES = ("gloo:", "nccl:")


@dataclass
class PictureConfig:
    """What ``arcdist bench picture`` is told."""

    folder: str = field(default=MISSING, metadata={"help": "of a run with train.profile, or of its traces"})
    picture: str = field(default="step.png", metadata={"help": "where it goes: .png or .svg"})
    step: int = field(default=0, metadata={"help": "which of the traced steps, counted from 1; 0: the middle one"})
    json: str = field(default="", metadata={"help": "file for what is drawn: milliseconds by part and rank"})


@dataclass(frozen=True)
class Stretch:
    """A part of a step, in milliseconds since the first rank began it."""

    name: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class TracedStep:
    """One step of a rank: its named parts in order, and its collectives, which run beside them."""

    parts: list[Stretch]
    collectives: list[Stretch]


def read_steps(config: PictureConfig) -> list[TracedStep]:
    """Return the same step of each rank, on one clock.

    Errors: DataError where there is no trace, or it is damaged, or lacks the names; ConfigError for a step beyond it.
    """
    folder = Path(config.folder)
    folder = folder / "profile" if (folder / "profile").is_dir() else folder
    paths = sorted(folder.glob("rank_*.pt.trace.json"), key=lambda path: int(path.name[5:].partition(".")[0]))
    if not paths:
        raise DataError(f"{folder}: holds no rank_N.pt.trace.json; train with train.profile=[FIRST,LAST]")
    traces = [_read(path) for path in paths]
    traced = min(len(_begins(events)) for events in traces)
    if not 0 <= config.step <= traced or not traced:
        raise ConfigError(f"step: {config.step}: must be 0 or one of the {traced} steps that the traces hold")
    index = (config.step or (traced + 1) // 2) - 1
    cut = [_cut(events, index) for events in traces]
    origin = min(event["ts"] for events in cut for event in events if event["name"] in PARTS)
    return [_step(events, origin) for events in cut]


def _read(path: Path) -> list[dict[str, Any]]:
    """Return a trace's named ranges and collectives by their start, in microseconds of the machine's clock."""
    try:
        content = json.loads(path.read_text())
        base_us = content.get("baseTimeNanoseconds", 0) / 1000
        events = [event for event in content["traceEvents"] if event.get("ph") == "X"]
        kept = [
            {"name": event["name"], "ts": event["ts"] + base_us, "dur": event["dur"]}
            for event in events
            if (event.get("cat") == "user_annotation" and event["name"] in PARTS)
            or event["name"].startswith(_COLLECTIVES)
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: is no trace of torch.profiler") from None
    return sorted(kept, key=lambda event: event["ts"])


def _begins(events: Sequence[dict[str, Any]]) -> list[float]:
    """Return when each step began that has an end too."""
    begins = [event["ts"] for event in events if event["name"] == "data"]
    ends = [event["ts"] for event in events if event["name"] == "optimizer"]
    return begins[: len(ends)]


def _cut(events: Sequence[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """Return the events of a step."""
    ends = [event["ts"] + event["dur"] for event in events if event["name"] == "optimizer"]
    return [event for event in events if _begins(events)[index] <= event["ts"] <= ends[index]]


def _step(events: Sequence[dict[str, Any]], origin: float) -> TracedStep:
    stretches = [
        Stretch(event["name"], (event["ts"] - origin) / 1000, (event["ts"] + event["dur"] - origin) / 1000)
        for event in events
    ]
    named = [stretch for stretch in stretches if stretch.name in PARTS]
    return TracedStep(named, [stretch for stretch in stretches if stretch.name not in PARTS])


def parts_ms(steps: Sequence[TracedStep]) -> list[dict[str, float]]:
    """Return for each rank the milliseconds of each part, and those of collectives, which other parts hide or not."""
    told = []
    for step in steps:
        row = {name: round(sum(s.end_ms - s.start_ms for s in step.parts if s.name == name), 3) for name in PARTS}
        row["collectives"] = round(sum(s.end_ms - s.start_ms for s in step.collectives), 3)
        told.append(row)
    return told
