"""One run at a time writes into a folder."""

import fcntl
import os
import socket
from pathlib import Path

from arcdist.checkpoint.marker import CheckpointError


class RunLock:
    """Holds a folder until the process ends, also by SIGKILL: the system gives it back, so no lock is ever stale.

    A record lock: children do not inherit it, and NFS knows it. Where a file system knows none, nothing is held.

    Args:
        folder: of the run.

    Errors: CheckpointError when another process holds it, or its file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / ".lock"
        try:
            self._file = path.open("a+")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}; does another user own it?") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._file.seek(0)
            holder = self._file.read(200).strip() or "another process"
            self._file.close()
            raise CheckpointError(
                f"{folder}: {holder} is writing into this folder; wait for its end, or choose another name= or folder="
            ) from error
        except OSError:  # no locks here
            return
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
