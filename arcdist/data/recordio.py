"""RecordIO, the container of the field's training sets: encoded images with their labels, and a text index.

A ``.rec`` file is records one after another, all numbers little-endian::

    part    u32 magic | u32 kind << 29 | length | data | zeros up to a multiple of 4 bytes
    record  one part (kind 0), or several (1 first, 2 middle, 3 last) whose data is joined by the magic: where it
            stands in the data, 4-byte aligned, the writer cuts, so that a part never holds what a head begins with
    data    IRHeader: u32 flag | f32 label | u64 id | u64 id2, then `flag` f32 labels, then the payload

and its ``.idx`` has a line ``key<TAB>byte offset`` for each record. Bytes are those of mxnet 1.9.1
(dmlc-core ``src/recordio.cc``, mxnet ``python/mxnet/recordio.py``). Labels are float32, exact up to 2**24 only.
"""

import contextlib
import numbers
import os
import struct
import zlib
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from arcdist.data.byte_file import ByteFile, RecordError
from arcdist.data.index_cache import LEAST_BYTES, cached_index
from arcdist.data.local_cache import LocalCache
from arcdist.data.record_index import RecordIndex, read_index

__all__ = ["Headers", "Record", "RecordError", "RecordReader", "RecordWriter"]

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_HEAD = struct.Struct("<II")
_IR_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LENGTH_BITS, _LENGTH_MASK = 29, (1 << 29) - 1
_SAMPLED_RECORDS = 64
_BLOCK_RECORDS = 1 << 16
_LEAST_AT_ONCE_BYTES = 1 << 12


class Record(NamedTuple):
    """One record: ``label`` is a float where ``flag`` is 0, else float32 ``[flag]``."""

    flag: int
    label: "float | np.ndarray"
    id: int
    id2: int
    payload: bytes

    @property
    def first_label(self) -> float:
        """Return the label, or the first of several: the class."""
        return float(self.label) if self.flag == 0 else float(np.asarray(self.label)[0])


class Headers(NamedTuple):
    """The headers of n records: ``flag`` uint32, ``label`` float32 (the first of several), ``payload_bytes`` int64."""

    flag: np.ndarray
    label: np.ndarray
    payload_bytes: np.ndarray


class RecordReader:
    """Random access to the records of a .rec file by their keys; iteration gives them in file order.

    The file is read at given bytes, with no position that readers share: one reader may serve many threads and, forked
    or pickled, many processes. The index takes 16 bytes a record; a large one is mapped from a cache file, once for all
    processes of a machine. Opening checks the whole index against the size of the file, a few records' heads and the
    last record; any other record is checked when it is read.

    Args:
        path: the .rec file.
        index_path: its index; the name with ``.idx`` unless given. Where there is none, the file is scanned from its
            beginning (``index_path`` is None then), and the keys are 0, 1, … in file order.
        cache: where copies of parts of the file may be; none by default.

    Raises:
        RecordError: here and from every method, for whatever is wrong with the two files.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        index_path: "str | os.PathLike[str] | None" = None,
        cache: "LocalCache | None" = None,
    ) -> None:
        self.path = Path(path)
        self._file = ByteFile(self.path, cache.copies(self.path) if cache else None)
        beside = self.path.with_suffix(".idx")
        self._index = RecordIndex(np.empty(0, np.int64), np.empty(0, np.int64))
        self._at_once_bytes = _LEAST_AT_ONCE_BYTES
        if index_path is None and not beside.exists():
            self._index = self._scan()
        else:
            self._index = self._read_index(Path(index_path or beside))
            self._check_samples()
        self.index_path = self._index.path
        # Read before a record's length is known: twice the mean, so that most records take one call.
        self._at_once_bytes = max(_LEAST_AT_ONCE_BYTES, 2 * self._file.size // max(1, len(self)))

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        """Return whether there is a record with this key."""
        return isinstance(key, numbers.Integral) and self._index.position(int(key)) is not None

    def __getitem__(self, key: int) -> Record:
        """Return the record with this key."""
        data = self.record_bytes(key)
        if len(data) < _IR_HEADER.size:
            raise RecordError(
                f"{self.path}: record {key}: its {len(data)} bytes hold no IRHeader ({_IR_HEADER.size} bytes); "
                "record_bytes() reads bare records"
            )
        flag, label, id_, id2 = _IR_HEADER.unpack_from(data)
        if flag == 0:
            return Record(flag, label, id_, id2, data[_IR_HEADER.size :])
        end = _IR_HEADER.size + 4 * flag
        if end > len(data):
            raise RecordError(f"{self.path}: record {key}: flag is {flag}, but {len(data)} bytes hold no {flag} labels")
        labels = np.frombuffer(data, "<f4", flag, _IR_HEADER.size).astype(np.float32)
        return Record(flag, labels, id_, id2, data[end:])

    def __iter__(self) -> Iterator[Record]:
        """Yield every record of the index in file order."""
        for position in self._index.file_order():
            yield self[int(self._index.keys[position])]

    def keys(self) -> np.ndarray:
        """Return all keys in file order, int64 ``[n]``."""
        return self._index.keys[self._index.file_order()]

    def sorted_keys(self) -> np.ndarray:
        """Return all keys in ascending order, int64 ``[n]``, without a copy: do not write to it."""
        return self._index.keys

    def offset(self, key: int) -> int:
        """Return the byte at which the record with this key begins."""
        position = self._index.position(key)
        if position is None:
            span = f", keys {self._index.keys[0]}..{self._index.keys[-1]}" if len(self) else ""
            raise RecordError(f"{self.path}: no record has key {key} ({self._index}{span})")
        return int(self._index.offsets[position])

    def record_bytes(self, key: int) -> bytes:
        """Return a record as it was given to the writer, IRHeader (if it has one) and payload."""
        offset = self.offset(key)
        data = self._file.read(offset, self._at_once_bytes)
        if len(data) >= _HEAD.size:
            magic, word = _HEAD.unpack_from(data)
            length = word & _LENGTH_MASK
            if magic == _MAGIC and word >> _LENGTH_BITS == _WHOLE and _HEAD.size + _padded(length) <= len(data):
                return data[_HEAD.size : _HEAD.size + length]
        parts, last = [], False
        while not last:
            start, length, last = self._part(key, offset, first=not parts)
            parts.append(self._file.read(start, length))
            offset = start + _padded(length)
        return _MAGIC_BYTES.join(parts)

    def headers(self, keys: np.ndarray) -> Headers:
        """Return the headers of these records, whose keys (int64 ``[n]``) must exist; no payload is read."""
        headers = Headers(
            np.empty(len(keys), np.uint32), np.empty(len(keys), np.float32), np.empty(len(keys), np.int64)
        )
        mapped = self._file.mapped()
        words = np.frombuffer(mapped, "<u4", len(mapped) // 4)
        for start in range(0, len(keys), _BLOCK_RECORDS):
            block = slice(start, start + _BLOCK_RECORDS)
            self._file.check_size()
            for whole, part in zip(headers, self._header_block(words, keys[block])):
                whole[block] = part
        return headers

    def close(self) -> None:
        """Give the file back; the reader cannot be used after."""
        self._file.close()

    def __enter__(self) -> "RecordReader":
        """Return the reader, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the reader."""
        self.close()

    def _part(self, key: int, offset: int, first: bool) -> tuple[int, int, bool]:
        """Return where the data of the part at ``offset`` starts, its length, and whether it is the record's last."""
        size = self._file.size
        if offset + _HEAD.size > size:
            raise self._error(key, offset, f"the file ends inside its head, after {size:_} bytes")
        magic, word = _HEAD.unpack(self._file.read(offset, _HEAD.size))
        if magic != _MAGIC:
            raise self._error(key, offset, f"magic is 0x{magic:08x}, not 0x{_MAGIC:08x}")
        kind, length = word >> _LENGTH_BITS, word & _LENGTH_MASK
        if kind not in ((_WHOLE, _FIRST) if first else (_MIDDLE, _LAST)):
            raise self._error(key, offset, f"a part of kind {kind} cannot {'begin' if first else 'continue'} a record")
        if offset + _HEAD.size + _padded(length) > size:
            raise self._error(key, offset, f"its {length:_} bytes reach beyond the end of the file, {size:_} bytes")
        return offset + _HEAD.size, length, kind in (_WHOLE, _LAST)

    def _error(self, key: int, offset: int, what: str) -> RecordError:
        if self._index.path:
            why = f"the file is damaged or cut short, or the index is another file's ({self._index}): copy both again"
        else:
            why = f"the file is damaged or cut short after {key} whole records (it has no index and was scanned)"
        return RecordError(f"{self.path}: record {key} at byte {offset:_}: {what}; {why}")

    def _header_block(self, words: np.ndarray, keys: np.ndarray) -> Headers:
        offset = self._index.offsets[np.searchsorted(self._index.keys, keys)]
        at = offset // 4
        length = (words[at + 1] & _LENGTH_MASK).astype(np.int64)
        simple = (words[at] == _MAGIC) & (words[at + 1] >> _LENGTH_BITS == _WHOLE) & (length >= _IR_HEADER.size)
        simple &= offset + _HEAD.size + length <= self._file.size
        at = np.where(simple, at, 0)
        flag = np.where(simple, words[np.minimum(at + 2, len(words) - 1)], 0)
        payload_bytes = length - _IR_HEADER.size - 4 * flag.astype(np.int64)
        simple &= payload_bytes >= 0
        first = np.where(simple, at + np.where(flag == 0, 3, 8), 0)
        headers = Headers(flag, words[first].view(np.float32), payload_bytes)
        for row in np.flatnonzero(~simple):  # records of several parts, and what is damaged: the error is its own
            record = self[int(keys[row])]
            headers.flag[row] = record.flag
            headers.label[row] = record.first_label
            headers.payload_bytes[row] = len(record.payload)
        return headers

    def _read_index(self, path: Path) -> RecordIndex:
        read = partial(read_index, path, self.path, self._file.size)
        large = path.exists() and path.stat().st_size >= LEAST_BYTES
        return cached_index(path, self._file.size, read) if large else read()

    def _scan(self) -> RecordIndex:
        """Return the index of the whole file, walking it from head to head."""
        starts = array("q")
        offset = 0
        while offset < self._file.size:
            starts.append(offset)
            last = False
            while not last:
                start, length, last = self._part(len(starts) - 1, offset, first=offset == starts[-1])
                offset = start + _padded(length)
        return RecordIndex(np.arange(len(starts)), np.array(starts, np.int64))

    def _check_samples(self) -> None:
        """Read a few heads, and the whole last record: of an index of another file, or of a cut one, none is right."""
        if len(self):
            for position in np.linspace(0, len(self) - 1, _SAMPLED_RECORDS).astype(int):
                self._part(int(self._index.keys[position]), int(self._index.offsets[position]), first=True)
            self.record_bytes(int(self._index.keys[self._index.offsets.argmax()]))


class RecordWriter:
    """Writes a .rec file and its .idx beside it, byte for byte as mxnet 1.9.1 does.

    Both are written aside and take their names when the writer is closed without an error; a writer that is left
    by an exception leaves nothing, or with ``aside`` what it has written.

    Args:
        path: of the .rec.
        aside: where the records are written until then; of what is there already ``keep`` takes one after the other,
            and the rest is written over. None: a name of this process's own.

    Raises:
        RecordError: a folder that cannot be written, or what the format cannot hold.
    """

    def __init__(self, path: "str | os.PathLike[str]", aside: "Path | None" = None) -> None:
        self.path = Path(path)
        self.index_path = self.path.with_suffix(".idx")
        if self.path == self.index_path:
            raise RecordError(f"{self.path}: the .idx is made beside; give the name of the .rec")
        self._leaves_aside = aside is not None
        self._rec_aside = aside or self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        self._index_aside = self._rec_aside.with_name(f"{self._rec_aside.name}.idx")
        self._keys = array("q")
        self.offset = self.crc = 0
        """The byte at which the next record begins, and the CRC-32 of the bytes from the last one's to there."""
        try:
            mode = "r+b" if aside and aside.exists() else "wb"
            self._rec = open(self._rec_aside, mode)  # noqa: SIM115 — open as long as the writer
            self._index = open(self._index_aside, "w", encoding="ascii", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from None

    def write(
        self, key: int, label: "float | np.ndarray | list[float]", payload: bytes, id: "int | None" = None, id2: int = 0
    ) -> None:
        """Append a record; a scalar label gives flag 0, an array its size; ``id`` is the key unless given."""
        flag, labels = 0, b""
        if not isinstance(label, numbers.Real):
            array_label = np.asarray(label, np.float32)
            flag, labels, label = array_label.size, array_label.astype("<f4").tobytes(), 0.0
        try:
            header = _IR_HEADER.pack(flag, float(label), key if id is None else id, id2)
        except (struct.error, OverflowError) as error:
            raise RecordError(f"{self.path}: record {key}: id and label do not fit the IRHeader: {error}") from None
        self.write_bytes(key, header + labels + payload)

    def write_bytes(self, key: int, data: bytes) -> None:
        """Append a bare record: ``data`` as it is, without an IRHeader."""
        if not 0 <= key < 1 << 63:
            raise RecordError(f"{self.path}: record {key}: a key is at least 0 and below 2**63")
        if len(data) > _LENGTH_MASK:
            raise RecordError(f"{self.path}: record {key}: {len(data):_} bytes; a record has less than 2**29")
        parts = _cut(data)
        self.crc = 0
        try:
            for number, part in enumerate(parts):
                kind = _LAST if number == len(parts) - 1 else _MIDDLE if number else _FIRST
                kind = _WHOLE if len(parts) == 1 else kind
                padding = bytes(_padded(len(part)) - len(part))
                framed = _HEAD.pack(_MAGIC, kind << _LENGTH_BITS | len(part)) + part + padding
                self._rec.write(framed)
                self.crc = zlib.crc32(framed, self.crc)
            self._index.write(f"{key}\t{self.offset}\n")
        except OSError as error:
            raise RecordError(f"{self.path}: record {key}: cannot be written: {error.strerror}") from None
        self._keys.append(key)
        self.offset = self._rec.tell()

    def keep(self, key: int, end: int) -> None:
        """Take the bytes that are in ``aside`` from here up to ``end`` for the record with this key."""
        self._index.write(f"{key}\t{self.offset}\n")
        self._keys.append(key)
        self.offset = self._rec.seek(end)

    def close(self) -> None:
        """Give both files their names; a reader never sees them half written, nor one with the other's old twin."""
        if self._rec.closed:
            return
        keys = np.unique(np.frombuffer(self._keys, np.int64)) if self._keys else self._keys
        if len(keys) < len(self._keys):
            self.discard()
            raise RecordError(f"{self.path}: {len(self._keys) - len(keys)} records have a key that was written before")
        try:
            self._rec.truncate()
            for file in (self._rec, self._index):
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self.index_path.unlink(missing_ok=True)
            self._rec_aside.replace(self.path)
            self._index_aside.replace(self.index_path)
        except OSError as error:
            self.discard()
            raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from None

    def discard(self) -> None:
        """Remove what was written, unless it is to stay ``aside``."""
        for file, aside in ((self._rec, self._rec_aside), (self._index, self._index_aside)):
            with contextlib.suppress(OSError):  # a full disk refuses the last flush; the file goes all the same
                file.close()
            if not self._leaves_aside:
                aside.unlink(missing_ok=True)

    def __enter__(self) -> "RecordWriter":
        """Return the writer, which is closed at the end of the block, or discarded where that fails."""
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        """Close or discard."""
        if kind is None:
            self.close()
        else:
            self.discard()


def _padded(length: int) -> int:
    return length + 3 & ~3


def _cut(data: bytes) -> list[bytes]:
    """Return the parts of a record: the pieces between the aligned magics of its data."""
    parts, start = [], 0
    found = data.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(data[start:found])
            start = found + 4
            found = data.find(_MAGIC_BYTES, start)
        else:
            found = data.find(_MAGIC_BYTES, found + 1)
    return [*parts, data[start:]]
