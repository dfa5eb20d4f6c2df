"""A limit to how long a rank may be at one thing; past it every rank says what it is doing, and the run dies.

A run that hangs is worse than one that fails: nothing starts it again. Each rank watches itself, so the stacks of all
are in the log, but for one that the system has frozen. The launcher then starts the run again, and it goes on.
"""

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

GRACE = 10  # as many times as long: a first step, an evaluation, a save, the start, the end
_PEERS_S = 3.0  # from the first rank's report to its death: the others, a little later, report too
_EXIT_CODE = 1
_STDERR = 2  # the file descriptor: sys.stderr may be a notebook's, which has none
_LAST_LINE = (
    "ending, so that the run is started again; runtime.step_timeout_s=0 for one that a debugger may hold, or a larger "
    "one where steps take that long"
)


class HangWatch:
    """Watches the main thread from a thread of its own.

    Where that cannot run, because something holds the interpreter, faulthandler's does: it prints stacks and ends the
    process a little later, without a word about phases. While Ctrl-Z suspends the process, no time passes.

    Args:
        limit_s: longest time in one phase, in seconds; 0: no limit.
        rank: of this process.
    """

    def __init__(self, limit_s: float, rank: int) -> None:
        self.limit_s, self._rank = limit_s, rank
        self._phase, self._until, self._closed = "", float("inf"), threading.Event()
        self._main = threading.main_thread().ident
        self._thread: threading.Thread | None = None
        self._before: Any = signal.SIG_DFL

    def open(self) -> None:
        """Begin to watch; phases that were named before do not count."""
        if self.limit_s:
            self._thread = threading.Thread(target=self._watch, name="hang watch", daemon=True)
            self._thread.start()
            if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
                self._before = signal.signal(signal.SIGTSTP, self._suspend)

    def at(self, phase: str, times: int = 1) -> None:
        """Begin a phase, ``times`` limits long at most; the one before is over."""
        if self._thread is None:
            return
        allowed_s = times * self.limit_s
        self._phase, self._until = f"{phase} takes longer than {allowed_s:g} s", time.monotonic() + allowed_s
        end_after(allowed_s + 2 * _PEERS_S)  # a little later than the watching thread

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        left_s, self._until = self._until - time.monotonic(), float("inf")
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        if left_s < float("inf"):
            self._until = time.monotonic() + left_s
            end_after(max(left_s, 0) + 2 * _PEERS_S)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTSTP, self._before)

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self.limit_s / 4)):
            if time.monotonic() < self._until:
                continue
            os.write(_STDERR, self._report().encode())
            if not self._closed.wait(_PEERS_S):
                os._exit(_EXIT_CODE)

    def _report(self) -> str:
        """Return, in lines that each begin with the rank, the phase, what it waits in, and every thread's stack."""
        threads = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()
        stacks = {ident: _stack(frame) for ident, frame in frames.items() if threads.get(ident) != "hang watch"}
        mine = stacks.pop(self._main or 0, [])
        lines = [f"{self._phase} on {socket.gethostname()}, process {os.getpid()}: {_waits_in(mine)}", *mine]
        for ident, stack in stacks.items():
            lines += [f"thread {threads.get(ident, ident)}:", *stack]
        return "".join(f"rank {self._rank}: {line}\n" for line in [*lines, _LAST_LINE])


def end_after(seconds: float) -> None:
    """End this process with 1 after so long, with the stacks of its threads, whatever it is doing then."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)


def _stack(frame: FrameType) -> list[str]:
    """Return where a thread is, innermost first, and in which file's object; without the source: files may hang."""
    return [
        f"  {part.f_code.co_filename}:{line} {part.f_code.co_name}{_of_file(part)}"
        for part, line in traceback.walk_stack(frame)
    ]


def _of_file(frame: FrameType) -> str:
    path = getattr(frame.f_locals.get("self"), "__dict__", {}).get("path")
    return f" of {path}" if isinstance(path, Path) else ""


def _waits_in(stack: list[str]) -> str:
    """Return which collective a stack is in."""
    for line in stack:
        if "distributed_c10d.py:" in line:
            return f"waits for other ranks in {line.rpartition(' ')[2]}"
        if line.endswith("_engine_run_backward"):
            return "is in the backward pass, where gradients wait for those of other ranks"
    return "is in no collective, so the others wait for it"
