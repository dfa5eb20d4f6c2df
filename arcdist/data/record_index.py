"""The index of a .rec file: which record begins at which byte."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.data.byte_file import RecordError


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """Keys in ascending order and the byte at which each one's record begins: int64 ``[n]`` each, 16 bytes a record.

    ``path`` is the .idx file, or None where the records were found by scanning. ``cache`` is the file that both are
    mapped from, None where they are in memory: another process that is sent the index maps it too.
    """

    keys: np.ndarray
    offsets: np.ndarray
    path: "Path | None" = None
    cache: "Path | None" = None

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.keys)

    def position(self, key: int) -> "int | None":
        """Return the position of a key, or None where no record has it."""
        if not len(self):
            return None
        position = key - int(self.keys[0])  # most files have every key between the first and the last
        if not (0 <= position < len(self) and self.keys[position] == key):
            position = int(np.searchsorted(self.keys, key))
        return position if position < len(self) and self.keys[position] == key else None

    def file_order(self) -> np.ndarray:
        """Return the positions in the order of the records in the file, int64 ``[n]``."""
        return np.argsort(self.offsets, kind="stable")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process makes the index."""
        if self.cache is None:
            return RecordIndex, (self.keys, self.offsets, self.path)
        return map_index, (self.cache, self.path, len(self))

    def __str__(self) -> str:
        """Return a few words for messages."""
        source = f"index: {self.path}" if self.path else "no index: keys are positions in the file"
        return f"{source}, {len(self)} records"


def map_index(cache: Path, path: "Path | None", records: int) -> RecordIndex:
    """Return the index whose keys and offsets end a cache file (`index_cache`); OSError where it cannot be mapped."""
    head_bytes = cache.stat().st_size - 16 * records
    columns = np.memmap(cache, np.int64, "r", head_bytes, (2, records))
    return RecordIndex(columns[0].view(np.ndarray), columns[1].view(np.ndarray), path, cache)


def read_index(path: Path, rec_path: Path, rec_bytes: int) -> RecordIndex:
    """Return the index that a text file of lines ``key<TAB>offset`` holds; about 8 million lines a second.

    Raises:
        RecordError: another kind of file, a key that is negative or there twice, an offset at which ``rec_path``, of
            ``rec_bytes`` bytes, can have no record.
    """
    try:
        table = np.empty((0, 2), np.int64)
        if path.stat().st_size:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # numpy before 2.4 reads 1.5 as an integer
                table = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding="ascii")
        if table.shape[1] != 2:
            raise ValueError(f"{table.shape[1]} columns")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, DeprecationWarning) as error:
        raise RecordError(f"{path}: is no index, whose lines are 'key<TAB>byte offset': {error}") from None
    order = np.argsort(table[:, 0], kind="stable")
    index = RecordIndex(table[order, 0], table[order, 1], path)
    _check(index, rec_path, rec_bytes)
    return index


def _check(index: RecordIndex, rec_path: Path, rec_bytes: int) -> None:
    if len(index) == 0 and rec_bytes:
        raise RecordError(f"{index.path}: lists no record, but {rec_path} has {rec_bytes:_} bytes")
    scan = f"without an index, {rec_path.name} is scanned"
    last = int(index.offsets.max(initial=0))
    for wrong, what, works in (
        (index.keys < 0, "have a negative key", scan),
        (np.diff(index.keys, append=index.keys[-1:] + 1) == 0, "have the key of another one", scan),
        (index.offsets < 0, "have a negative offset", scan),
        (
            index.offsets > rec_bytes - 8,
            f"lie beyond the end of {rec_path.name} ({rec_bytes:_} bytes), which is cut short or another index's",
            f"a whole copy has over {last:_} bytes; with these lines taken out of the index, the others are read",
        ),
        (index.offsets % 4 != 0, "have an offset that is no multiple of 4; the index is another file's", scan),
    ):
        if wrong.any():
            first = wrong.argmax()
            raise RecordError(
                f"{index.path}: {wrong.sum()} of {len(index)} records {what} (the first: key {index.keys[first]} at "
                f"byte {index.offsets[first]:_}); {works}"
            )
