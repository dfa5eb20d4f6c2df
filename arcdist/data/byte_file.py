"""Reading anywhere in a large file from several threads, so that whatever becomes of the file is an error to be told.

A mapped page that cannot be had (a file that was cut short meanwhile, a disk or a network that fails) ends the process
by SIGBUS, and while it is fetched every thread waits for the interpreter. ``pread`` gives an error, and lets the others
run; of a file in memory it costs a microsecond.
"""

import mmap
import os
from pathlib import Path
from typing import Any, Protocol

from arcdist.errors import DataError


class RecordError(DataError):
    """A .rec or .idx file that is missing, cut short, damaged, or does not belong to the other."""


class Near(Protocol):
    """A part of a file's bytes that can be had from nearer by."""

    def read(self, offset: int, length: int, /) -> "bytes | None":
        """Return exactly these bytes, or None where they are not all here."""
        ...


class ByteFile:
    """The bytes of a file that does not change while it is open.

    Args:
        path: the file.
        near: where bytes are looked for first.

    Raises:
        RecordError: here and from every method, for a file that cannot be read or is shorter than when it was opened.
    """

    def __init__(self, path: Path, near: "Near | None" = None) -> None:
        self.path, self._near = path, near
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 — open as long as the object
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise RecordError(f"{path}: cannot be read: {error.strerror}") from None

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from ``offset`` on, fewer than ``length`` at the end of the file."""
        length = min(length, self.size - offset)
        if self._near is not None and (data := self._near.read(offset, length)) is not None:
            return data
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read at byte {offset:_}: {error.strerror}") from None
        if len(data) < length:
            self.check_size()
            data += self.read(offset + len(data), length - len(data))  # interrupted
        return data

    def mapped(self) -> "mmap.mmap | bytes":
        """Return all bytes, mapped, for a pass over what lies far apart; `check_size` shortly before each use."""
        self.check_size()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""

    def check_size(self) -> None:
        """Raise RecordError where the file has become shorter."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self.size:
            raise RecordError(f"{self.path}: had {self.size:_} bytes when it was opened and has {size:_} now")

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the file again."""
        return {"path": self.path, "size": self.size, "near": self._near}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again."""
        ByteFile.__init__(self, state["path"], state["near"])
        if self.size != state["size"]:
            raise RecordError(f"{self.path}: had {state['size']:_} bytes when it was opened and has {self.size:_} now")
