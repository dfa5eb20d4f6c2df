"""Being asked to stop: a signal sets a flag, and the run stops where all ranks agree to.

A scheduler asks by SIGTERM (Kubernetes, Slurm, torchrun's own end) or SIGUSR1 (``sbatch --signal``), a person by
Ctrl-C, and a launcher by its death. What a run leaves then says how it ended, since torchrun answers 1 even where every
rank ended well.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from arcdist.errors import ArcdistError, DataError

STOPPED, FINISHED = "STOPPED.json", "FINISHED.json"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_launcher = os.getppid()


def _note_launcher() -> None:
    global _launcher
    _launcher = os.getppid()


os.register_at_fork(after_in_child=_note_launcher)


class StoppedElsewhereError(ArcdistError):
    """The run stopped because another node was asked to; this node's launcher was not, and may start it again."""


class StopRequest:
    """Whether this process was asked to stop: as a context it listens to signals, and until then to nothing.

    A second Ctrl-C raises KeyboardInterrupt.

    Attributes:
        signal: the first signal's name; empty where there was none.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Listen, in the main thread; elsewhere Python takes no signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform.startswith("linux"):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # ranks do not outlive torchrun
                if os.getppid() != _launcher:  # it has died meanwhile
                    self._note(signal.SIGTERM, None)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Nothing but a flag: the signal may have come in the middle of a collective or of a write.
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number).name

    def is_of_another_node(self) -> bool:
        """Return whether, of a run that stopped, only another node was asked to.

        That node's launcher stops its ranks to let a node join. This node's would take an end with 0 for the run's.
        """
        return not self.signal and int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1

    def __bool__(self) -> bool:
        """Return whether this process was asked to stop; others may not have been yet."""
        return bool(self.signal)


def leave_marker(folder: Path, name: str, about: dict[str, Any]) -> None:
    """Write STOPPED.json or FINISHED.json, whole or not at all.

    Errors: DataError where it cannot be written, as on a full disk.
    """
    aside = folder / f".{name}.partial"
    try:
        aside.write_text(json.dumps(about, indent=1) + "\n")
        aside.replace(folder / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise DataError(
            f"{folder / name}: cannot be written: {error.strerror}; the run has saved, and the same command goes on"
        ) from None


def remove_markers(folder: Path) -> None:
    """Remove what an earlier process of the run said of its end."""
    for name in (STOPPED, FINISHED):
        (folder / name).unlink(missing_ok=True)
