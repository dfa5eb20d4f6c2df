"""A training set with a label list: which image of the source each record is."""

import contextlib
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from arcdist.data.training_set import TrainingSetWriter
from arcdist.errors import DataError


class NamedSetWriter:
    """Writes ``OUT.rec``, ``.idx``, property and ``OUT.lst``, whose lines are ``key<TAB>label<TAB>name``.

    All are there after a clean end and none after an exception, and what had these names before is away first, so that
    no list ever stands beside another's records.

    Args:
        path: of the .rec.
        image_size: height and width in pixels, for the property.
        records: as ``aside`` of ``RecordWriter``; the list then lies beside it until the end.

    Errors: DataError or OSError for a folder that cannot be written.
    """

    def __init__(self, path: Path, image_size: int, records: "Path | None" = None) -> None:
        self.set = TrainingSetWriter(path, image_size, records)
        self._list_path = path.with_suffix(".lst")
        name = f"{self._list_path.name}.{os.getpid()}.partial"
        self._aside = records.with_name("list") if records else self._list_path.with_name(name)
        self._list = open(self._aside, "w", encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: SIM115

    def write(self, label: int, payload: bytes, name: str) -> None:
        """Write an encoded image of the last identity, or of the next one."""
        self._list.write(f"{self.set.write(label, payload)}\t{label}\t{name}\n")

    def keep(self, label: int, end: int, name: str) -> None:
        """Take what lies aside up to byte ``end`` for an image of this label."""
        self._list.write(f"{self.set.keep(label, end)}\t{label}\t{name}\n")

    def __enter__(self) -> "NamedSetWriter":
        """Return the writer."""
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        """Complete the set, or leave nothing of it."""
        if kind is not None:
            self.set.__exit__(kind, error, trace)
            with contextlib.suppress(OSError):  # a full disk
                self._list.close()
            self._aside.unlink(missing_ok=True)
            return
        try:
            with contextlib.ExitStack() as stack:
                stack.push(self.set)  # completed at the end of the block, or discarded where that fails
                self._list.close()
                for path in (self._list_path, self.set.path.with_suffix(".property")):
                    path.unlink(missing_ok=True)
            self._aside.replace(self._list_path)
        finally:
            self._aside.unlink(missing_ok=True)


class RecordNames:
    """The names of the records of a .rec, from the label list beside it; ``FILE.rec/KEY`` where there is none.

    Memory: 16 bytes a line; the list is mapped.

    Errors: DataError for a list of which a line begins with no key.
    """

    def __init__(self, rec_path: Path) -> None:
        self._rec_path, path = rec_path, rec_path.with_suffix(".lst")
        self._keys = self._starts = np.empty(0, np.int64)
        self._text = np.empty(0, np.uint8)
        if not path.is_file() or not path.stat().st_size:
            return
        try:
            self._keys = np.loadtxt(
                path, np.int64, comments=None, delimiter="\t", usecols=0, ndmin=1, encoding="latin1"
            )
        except ValueError as error:
            raise DataError(f"{path}: is no list of lines 'key<TAB>label<TAB>name': {error}") from None
        self._text = np.memmap(path, np.uint8, "r")
        self._starts = np.append(0, np.flatnonzero(self._text == ord("\n")) + 1)
        self._starts = self._starts[self._starts < len(self._text)]
        if len(self._starts) != len(self._keys):
            raise DataError(f"{path}: {len(self._starts) - len(self._keys)} of its lines are empty; take them out")
        order = np.argsort(self._keys, kind="stable")
        self._keys, self._starts = self._keys[order], self._starts[order]

    @property
    def known(self) -> bool:
        """Whether there is a list."""
        return len(self._keys) > 0

    def __getitem__(self, key: int) -> str:
        """Return the name of the record with this key."""
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return f"{self._rec_path.name}/{key}"
        start = int(self._starts[at])
        line = self._text[start : start + _MOST_BYTES].tobytes().split(b"\n", 1)[0]
        return line.split(b"\t", 2)[-1].rstrip(b"\r").decode("utf-8", "surrogateescape")


_MOST_BYTES = 8192  # of a line: a path has at most 4096
