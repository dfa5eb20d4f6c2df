"""Faults that a run must survive, made to happen, and what came of them."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from arcdist.bench import faults_link, faults_lossy, machine
from arcdist.bench.faults_checkpoint import kills_during_saves
from arcdist.bench.faults_kills import kills_in_a_run
from arcdist.bench.faults_link import cut_link
from arcdist.bench.faults_lossy import slow_link
from arcdist.bench.faults_nodes import CHANGES, nodes_come_and_go, rendezvous_dies
from arcdist.bench.launched import Launched
from arcdist.errors import ConfigError

_log = logging.getLogger("arcdist")
CASES = ("kills", "saves", "nodes", "host", "link", "lossy")

_LACKS = {"link": faults_link.missing, "lossy": faults_lossy.missing}


@dataclass
class FaultsConfig:
    """Which faults, and how many of them."""

    case: str = field(default="all", metadata={"help": f"all | {' | '.join(CASES)}"})
    saves: int = field(default=50, metadata={"help": "of saves: processes that are killed while they save"})
    numbers: int = field(default=2_000_000, metadata={"help": "of saves: float32 in a checkpoint"})
    kills: int = field(default=20, metadata={"help": "of kills: ranks that are killed in a run under torchrun"})
    ranks: list[int] = field(default_factory=lambda: [2, 3], metadata={"help": "of kills: ranks of each run"})
    seed: int = field(default=0, metadata={"help": "of the moments and of what is hit"})
    json: str = field(default="", metadata={"help": "file for the result"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a value that cannot be right."""
        if self.case not in ("all", *CASES):
            raise ConfigError(f"case: {self.case!r}: must be one of all, {', '.join(CASES)}")
        for key, least in (("saves", 1), ("kills", 2), ("numbers", 2)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key}: {getattr(self, key)}: must be at least {least}")
        if self.case in _LACKS and (lacks := _LACKS[self.case]()):
            raise ConfigError(f"case: {self.case}: {lacks}")
        if not self.ranks or not set(self.ranks) <= {1, 2, 3, 6}:
            raise ConfigError(f"ranks: {list(self.ranks)}: must be of 1, 2, 3, 6, which can share the run's batches")


def faults(
    config: FaultsConfig, so_far: Callable[[dict[str, Any]], None] = lambda _: None, launch: type[Launched] = Launched
) -> dict[str, Any]:
    """Let the faults happen, and return what came of each case, ready for JSON.

    Args:
        config: which.
        so_far: is called with the result after every case.
        launch: how runs are started.

    Returns:
        ``cases``, by name, each with ``survived`` and ``seconds``; of all of them ``survived``, ``kills``,
        ``bit_identical`` and ``steps_redone_max``.

    Errors: LaunchedRunError or CheckpointError where a run does not go on.
    """
    config.validate()
    result: dict[str, Any] = {"bench": "faults", **machine.description(torch.device("cpu"), threads=1)}
    result |= {"seed": config.seed, "cases": {}}
    with Progress(console=Console(stderr=True), transient=True, disable=not config.progress) as progress:
        for name, times, case in _cases(config, launch):
            bar, began = progress.add_task(name, total=times), time.monotonic()
            found = case(done=partial(progress.advance, bar))
            result["cases"][name] = {**found, "seconds": round(time.monotonic() - began, 1)}
            so_far(result | _together(result["cases"]))
    return result | _together(result["cases"])


def _cases(config: FaultsConfig, launch: type[Launched]) -> Iterator[tuple[str, int, Callable[..., dict[str, Any]]]]:
    """Yield each case's name, how many faults it has, and what does it."""
    chosen = CASES if config.case == "all" else (config.case,)
    for name in [case for case in chosen if case in _LACKS]:
        if lacks := _LACKS[name]():
            _log.warning("the case %s is left out: it %s", name, lacks)
            chosen = tuple(case for case in chosen if case != name)
    for ranks in config.ranks if "kills" in chosen else ():
        yield f"kills of {ranks} ranks", config.kills, partial(kills_in_a_run, config.kills, ranks, config.seed, launch)
    if "saves" in chosen:
        yield "saves", config.saves, partial(kills_during_saves, config.saves, config.seed, config.numbers)
    if "nodes" in chosen:
        yield "nodes", len(CHANGES), partial(nodes_come_and_go, launch=launch)
    if "host" in chosen:
        yield "host", 1, partial(rendezvous_dies, launch)
    if "link" in chosen:
        yield "link", 2, cut_link
    if "lossy" in chosen:
        yield "lossy", 1, slow_link


def _together(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = list(cases.values())
    return {
        "survived": all(case["survived"] for case in found),
        "kills": sum(case.get("kills", 0) for case in found),
        "bit_identical": all(case.get("bit_identical", True) for case in found),
        "steps_redone_max": max((case["steps_redone_max"] for case in found if "steps_redone_max" in case), default=0),
    }
