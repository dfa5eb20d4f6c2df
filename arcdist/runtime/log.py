"""What a run says: one line from rank 0, not one from each rank; and a file of each rank that has it all."""

import contextlib
import logging
import sys
from pathlib import Path


class _RankFile(logging.FileHandler):
    """A file that costs a run nothing where it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's own name)
        """Lose the record."""


class _Terminal(logging.StreamHandler):
    """Standard error as it is at the time: a progress bar puts itself in its place, to have lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


_in_file_only = logging.getLogger("arcdist.file_only")
_in_file_only.propagate = False


def set_up_log(rank: int, folder: Path | None = None) -> logging.Logger:
    """Return the logger of arcdist; on the terminal ranks other than 0 only warn, and say who they are.

    Args:
        rank: this process's.
        folder: gets ``rank0.log`` and so on, which a restarted run writes on; None: no file.
    """
    logger = logging.getLogger("arcdist")
    logger.disabled = _in_file_only.disabled = False  # Hydra turns off the loggers that it finds
    for old in (*logger.handlers, *_in_file_only.handlers):
        old.close()
    logger.handlers.clear()
    _in_file_only.handlers.clear()
    handler = _Terminal(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"rank {rank}: %(message)s"))
    handler.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if folder is not None:
        with contextlib.suppress(OSError):  # whoever needs the folder says what is wrong with it
            folder.mkdir(parents=True, exist_ok=True)
            file = _RankFile(folder / f"rank{rank}.log", encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logger.addHandler(file)
            _in_file_only.addHandler(file)
    return logger


def keep_failure(error: BaseException) -> None:
    """Write an error with its traceback to this rank's file; the terminal gets what a user can mend, and no more."""
    if _in_file_only.handlers:
        _in_file_only.error("ended by an error", exc_info=error)
