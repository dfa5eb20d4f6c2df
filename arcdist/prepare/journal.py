"""What an interrupted pack has done, so that the next one goes on from there."""

import contextlib
import fcntl
import json
import shutil
import zlib
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from arcdist.errors import DataError


@dataclass(frozen=True)
class Entry:
    """A file that was packed or skipped."""

    name: str
    bytes: int
    changed_ns: int
    how: str
    """Which count of the report an image belongs to, or why a file was skipped."""
    end: int
    """The byte of the .rec after it; that of the entry before for a skipped file."""
    crc: int
    """Of the record, head and padding included; 0 for a skipped file."""


class Journal:
    """A folder with the records of a pack that is under way, and a line for each file that it has dealt with.

    A line counts only if the record it speaks of is there, byte for byte (CRC-32); so neither the order in which a
    system writes the two to a disk matters, nor what a kill or a loss of power leaves of them.

    Args:
        folder: is made where it is missing.
        settings: what else the records depend on; what was done with others is thrown away.

    Raises:
        DataError: another process holds the folder.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.records = folder, folder / "records"
        folder.mkdir(exist_ok=True)
        self._file = open(folder / "journal", "a+b")  # noqa: SIM115 — open as long as the journal
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataError(f"{folder}: another process is at work in it") from None
        first = json.dumps(settings).encode() + b"\n"
        self._file.seek(0)
        if self._file.readline() != first or not self.records.exists():
            self.records.unlink(missing_ok=True)
            self._file.truncate(0)
            self._file.write(first)
            self._file.flush()
        self._left = self.records.open("rb") if self.records.exists() else None
        self._at = self._end = 0

    def next(self, name: str, bytes: int, changed_ns: int) -> "Entry | None":
        """Return the next entry if it is of this file, as it is now; else None, and what comes after is forgotten."""
        if self._left is None:
            return None
        self._at = self._file.tell()
        entry = _entry(self._file.readline())
        if entry and (entry.name, entry.bytes, entry.changed_ns) == (name, bytes, changed_ns):
            record = self._left.read(entry.end - self._end) if entry.end > self._end else b""
            if len(record) == entry.end - self._end and zlib.crc32(record) == entry.crc:
                self._end = entry.end
                return entry
        self.forget()
        return None

    def forget(self) -> None:
        """Forget the entry that was returned last and all after it."""
        if self._left:
            self._left.close()
        self._left = None
        self._file.truncate(self._at)

    def add(self, entry: Entry) -> None:
        """Write a line, which counts as soon as its record is on the disk."""
        self._file.write(json.dumps(astuple(entry)).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> "Journal":
        """Return the journal."""
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        """Remove the folder, or after an error in which something is done leave it."""
        if self._left:
            self._left.close()
        with contextlib.suppress(OSError):  # a full disk
            self._file.close()
        if kind is None or not (self.records.exists() and self.records.stat().st_size):
            shutil.rmtree(self.folder, ignore_errors=True)


def _entry(line: bytes) -> "Entry | None":
    """Return what a line says, None where it is cut or damaged."""
    try:
        return Entry(*json.loads(line))
    except (ValueError, TypeError):
        return None
