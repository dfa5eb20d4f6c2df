"""What strangers may hand in, damaged or meaning harm: each must be refused with a message, or be read rightly."""

import contextlib
import functools
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from rich.console import Console
from rich.progress import track

from arcdist.bench.fuzz_sets import Sets
from arcdist.bench.fuzz_weights import Checkpoints, Weights
from arcdist.errors import ArcdistError, ConfigError

_HANGS_S = 60
_SILENT = ("other label", "other state")
_RUNS_OR_CHANGES = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "subprocess.Popen"),
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree", "socket.connect"),
)


@dataclass
class FuzzConfig:
    """How many inputs there are."""

    files: int = field(default=10_000, metadata={"help": "inputs, of every kind: files, folders, command lines"})
    seed: int = field(default=0, metadata={"help": "of the damage; input n is the same for any number of them"})
    json: str = field(default="", metadata={"help": "file for the result"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a number of files below 1."""
        if self.files < 1:
            raise ConfigError(f"files: {self.files}: must be at least 1")


class Subject(Protocol):
    """Inputs of some kinds, which lie in a folder of their own: one is damaged, and read."""

    shares: ClassVar[dict[str, int]]
    """How many of a hundred inputs are of each kind."""

    def damage(self, kind: str, rng: np.random.Generator, canary: Path, /) -> str:
        """Make the next input, and return how it is damaged; harm would be that the folder ``canary`` came to be."""
        ...

    def read(self, kind: str, /) -> str:
        """Return what came of reading it; an ArcdistError where it is refused."""
        ...


def fuzz(
    config: FuzzConfig, subjects: Sequence[Callable[[Path], Subject]] = (Sets, Weights, Checkpoints)
) -> dict[str, Any]:
    """Return how every input was taken, ready for JSON.

    ``outcomes`` of each kind: ``refused`` (with a message), ``faults named`` (each record that is not right),
    ``passed over`` (a checkpoint that is none any more), ``accepted``, ``read as before``, ``other images``, ``other
    numbers`` and ``read as another list`` (damage for which the formats have no checksum); ``other label`` (an image
    that is read with a label that is not its own), ``other state`` (a checkpoint that is not what was saved), both of
    them ``silent``; ``crash``, ``hang`` (over a minute) and ``code ran`` (a process was begun, or the disk changed).
    Each of these five is described in a list of its kind; ``slowest_s`` is of one input.

    Args:
        config: how many.
        subjects: of what, each made in a folder.
    """
    config.validate()
    outcomes: dict[str, Counter[str]] = {}
    found: dict[str, list[str]] = {name: [] for name in ("crashes", "hangs", "silent", "code_ran")}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        canary, kinds = Path(scratch) / "canary", _kinds(Path(scratch), subjects)
        numbers = track(
            range(config.files), "damaging", console=Console(stderr=True), transient=True, disable=not config.progress
        )
        for number in numbers:
            kind, subject = kinds[number % len(kinds)]
            how = subject.damage(kind, np.random.default_rng((config.seed, number)), canary)
            began = time.monotonic()
            outcome, reason = _outcome(subject, kind, canary)
            slowest = max(slowest, time.monotonic() - began)
            outcomes.setdefault(kind, Counter())[outcome] += 1
            listed = {"crash": "crashes", "hang": "hangs", "code ran": "code_ran"} | dict.fromkeys(_SILENT, "silent")
            if outcome in listed:
                found[listed[outcome]].append(f"input {number} ({kind}, {how}){reason}")
    return {
        "command": f"arcdist bench fuzz files={config.files} seed={config.seed}",
        "files": config.files,
        "seed": config.seed,
        "outcomes": {kind: dict(counts.most_common()) for kind, counts in outcomes.items()},
        **found,
        "slowest_s": round(slowest, 3),
    }


def _kinds(scratch: Path, subjects: Sequence[Callable[[Path], Subject]]) -> list[tuple[str, Subject]]:
    """Return what each of a round of inputs is, those of one kind apart from each other."""
    kinds = []
    for number, make in enumerate(subjects):
        folder = scratch / str(number)
        folder.mkdir()
        subject = make(folder)
        for kind, share in subject.shares.items():
            kinds += [((place + 0.5) / share, kind, subject) for place in range(share)]
    return [(kind, subject) for _, kind, subject in sorted(kinds, key=lambda one: one[:2])]


def _outcome(subject: Subject, kind: str, canary: Path) -> tuple[str, str]:
    outcome, reason = "", ""
    with _watched() as seen:
        try:
            outcome = subject.read(kind)
        except ArcdistError as error:
            outcome = "refused" if str(error) else "crash"
        except TimeoutError:
            outcome = "hang"
        except Exception as error:  # a defect, which is what is looked for here
            outcome, reason = "crash", f": {type(error).__name__}: {error}"
    if canary.exists():
        canary.rmdir()
        seen.append("what it asked for was done")
    return ("code ran", f": {', '.join(seen)}") if seen else (outcome, reason)


_watching: list[list[str]] = []  # at most one


@functools.cache
def _listen() -> None:
    sys.addaudithook(_audit)  # for good: Python takes none away


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if _watching and (event in _RUNS_OR_CHANGES or writes):
        _watching[-1].append(f"{event} {arguments[:1]}")


@contextlib.contextmanager
def _watched() -> Generator[list[str]]:
    """Note what the block does beyond reading, and end it by TimeoutError where it takes too long."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError

    _listen()
    seen: list[str] = []
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_HANGS_S)
    _watching[:] = [seen]
    try:
        yield seen
    finally:
        _watching[:] = []
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep what is logged of each input to itself."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
