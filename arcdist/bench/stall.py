"""How long a save keeps a run from its next step: in the background, and where the run waits until it is written."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from arcdist.bench import machine
from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.writer import CheckedWriter
from arcdist.errors import ConfigError

_MIB = 1 << 20


@dataclass
class StallConfig:
    """How large a state is saved, and how often."""

    mib: int = field(default=1024, metadata={"help": "size of the state"})
    rounds: int = field(default=5, metadata={"help": "saves of each kind, one after another in turn"})
    folder: str = field(
        default="", metadata={"help": "on the disk to write to; empty: the system's for temporary files"}
    )
    json: str = field(default="", metadata={"help": "file for the result"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a number that cannot be right."""
        for key in ("mib", "rounds"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}: {getattr(self, key)}: must be at least 1")


def bench_stall(config: StallConfig) -> dict[str, Any]:
    """Return seconds, one a save, and their medians.

    ``background``: until ``save`` returns, which is what training waits for. ``synchronous``: until it is written,
    flushed, read back and committed. ``unchecked``: torch.distributed.checkpoint's own save, flushed but
    not read back. ``share`` and ``share_of_unchecked`` are the first's part of the latter two.

    Errors: CheckpointError where a save fails.
    """
    config.validate()
    before = machine.description(torch.device("cpu"), threads=torch.get_num_threads())
    numbers = config.mib * _MIB // 8
    state = {"head.centers": torch.rand(numbers // 512, 512), "optimizer.momentum": torch.rand(numbers // 512, 512)}
    times: dict[str, list[float]] = {"background": [], "synchronous": [], "unchecked": []}
    with tempfile.TemporaryDirectory(dir=config.folder or None) as scratch:
        manager = CheckpointManager(Path(scratch) / "checkpoints", CheckpointConfig())
        manager.prepare(state)
        for number in track(
            range(config.rounds), "saving", console=Console(stderr=True), transient=True, disable=not config.progress
        ):
            aside = Path(scratch) / f"unchecked-{number}"
            times["unchecked"].append(_seconds(lambda to=aside: CheckedWriter(to).write(state, None)))
            for file in aside.iterdir():
                file.unlink()
            for kind, wait, step in (("synchronous", True, 2 * number), ("background", False, 2 * number + 1)):
                times[kind].append(
                    _seconds(lambda step=step, wait=wait: manager.save(step, state, {"config": {}}, wait))
                )
                if fault := manager.wait():
                    raise CheckpointError(fault)
    medians = {kind: statistics.median(seconds) for kind, seconds in times.items()}
    return {
        "bench": "stall",
        **before,
        "mib": config.mib,
        "seconds": {kind: [round(value, 4) for value in seconds] for kind, seconds in times.items()},
        "median_s": {kind: round(value, 4) for kind, value in medians.items()},
        "share": round(medians["background"] / medians["synchronous"], 4),
        "share_of_unchecked": round(medians["background"] / medians["unchecked"], 4),
    }


def _seconds(function: Callable[[], None]) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began
