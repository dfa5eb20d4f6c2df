"""A run that torchrun has started, seen from outside: its ranks' processes, the steps it has done, what it says."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from arcdist.errors import ArcdistError

# Without the first, torch's agent breaks its own restarts: runtime/world.py.
ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
_LAST_RECORDS_BYTES = 4096


class LaunchedRunError(ArcdistError):
    """A run under torchrun did not do what it had to."""


class Launched:
    """A run under torchrun, whose processes are killed when the context is left.

    Args:
        torchrun: its options.
        arguments: of ``arcdist train``; ``folder`` is added.
        folder: of the run.
        log: where everything that it prints goes.
        before: a command that starts torchrun: of a network namespace, or a script that starts it again.
        environment: on top of ``ENVIRONMENT`` and this process's.
    """

    def __init__(
        self,
        torchrun: Sequence[str],
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        before: Sequence[str] = (),
        environment: "dict[str, str] | None" = None,
    ) -> None:
        self.folder, self.log = folder, log
        self.environment = {**os.environ, **ENVIRONMENT, **(environment or {})}
        self.pid = self._start([*before], [*torchrun], [*arguments, f"folder={folder}"])

    def _start(self, before: list[str], torchrun: list[str], arguments: list[str]) -> int:
        command = [sys.executable, "-m", "torch.distributed.run", *torchrun, "--module", "arcdist", "train", *arguments]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C ends the bench, which then ends the run.
            self._process = subprocess.Popen(
                [*before, *command], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        return self._process.pid

    def code(self) -> "int | None":
        """Return the launcher's exit code, None while it is there."""
        return self._process.poll()

    def descendants(self) -> list[int]:
        """Return the processes that the launcher has started, directly or not."""
        return _descendants(self.pid)

    def ranks(self) -> dict[int, int]:
        """Return the process of each rank on this machine that the launcher has started."""
        found = {}
        for pid in self.descendants():
            if rank := re.search(r"(?:^|\0)RANK=(\d+)", _environment(pid)):
                found[int(rank[1])] = pid
        return found

    def step(self) -> int:
        """Return the last step that rank 0 has recorded; 0 where there is none."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_RECORDS_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            with contextlib.suppress(ValueError):  # one that is being written, or that death has cut
                return int(json.loads(line)["step"])
        return 0

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, what: str, happened: Callable[[], object], timeout_s: float, look_s: float = 2e-3) -> None:
        """Wait until something has happened.

        Args:
            what: is awaited, for the error.
            happened: whether it has.
            timeout_s: longest wait.
            look_s: time between two looks.

        Errors: LaunchedRunError where the launcher ends before it, or it takes longer.
        """
        limit = time.monotonic() + timeout_s
        while not happened():
            ended = self.code()
            if (ended is not None and not happened()) or time.monotonic() > limit:
                state = "took too long" if ended is None else f"ended with {ended}"
                raise LaunchedRunError(f"{self.folder}: {what}: torchrun {state}; it said:\n{self.said()[-3000:]}")
            time.sleep(look_s)

    def follow(self, until: Callable[[], object], timeout_s: float) -> int:
        """Wait until something has happened, and return the furthest step that was recorded meanwhile."""
        furthest = self.step()

        def look() -> object:
            nonlocal furthest
            furthest = max(furthest, self.step())
            return until()

        self.wait_for("a change", look, timeout_s, 0.02)
        return furthest

    def wait(self, timeout_s: float) -> int:
        """Wait for the launcher's end and return its exit code."""
        self.wait_for("its end", lambda: self.code() is not None, timeout_s, 0.05)
        code = self.code()
        assert code is not None
        return code

    def kill(self) -> None:
        """End the launcher and its ranks by SIGKILL."""
        for pid in [self.pid, *self.descendants()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        self._process.wait()

    def __enter__(self) -> "Launched":
        """Return the run."""
        return self

    def __exit__(self, kind: "type[BaseException] | None", error: object, trace: "TracebackType | None") -> None:
        """End what is left of it."""
        if self.code() is None:
            self.kill()


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have, as Linux tells."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [further for child in children for further in _descendants(child)]


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:  # it has ended
        return ""
