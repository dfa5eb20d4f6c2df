"""Writing a training set in the layout of insightface's ``face2rec2.py``, which its trainers and ours read."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from arcdist.data.recordio import RecordWriter
from arcdist.errors import DataError


class TrainingSetWriter:
    """Images with the keys 1, 2, … and scalar labels, those of one identity adjacent; then, on a clean end, the rest.

    The rest is record 0, with label ``[n + 1, n + 1 + classes]`` and no payload, a record
    ``[first key, one past its last]`` for each identity, and ``NAME.property`` (``classes,height,width``); also
    ``property``, which insightface looks for, unless the folder holds another .rec.

    An exception inside of the context leaves nothing, or with ``aside`` what it has written.

    Args:
        path: of the .rec.
        image_size: height and width in pixels, for the property.
        aside: as of ``RecordWriter``.

    Errors: DataError for a folder that cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], image_size: int, aside: Path | None = None) -> None:
        self.path, self.image_size = Path(path), image_size
        self._records = RecordWriter(path, aside)
        self._first_keys: list[int] = []
        self._next_key = 1

    @property
    def images(self) -> int:
        """Images written so far."""
        return self._next_key - 1

    @property
    def identities(self) -> int:
        """Identities that have an image so far: the label of the next one."""
        return len(self._first_keys)

    def write(self, label: int, payload: bytes) -> int:
        """Write an encoded image of the last identity, or of the next one; return its key."""
        key = self._key_for(label)
        self._records.write(key, label, payload)
        return key

    def keep(self, label: int, end: int) -> int:
        """Take what is in ``aside`` up to byte ``end`` for an image of this label; return its key."""
        key = self._key_for(label)
        self._records.keep(key, end)
        return key

    @property
    def offset(self) -> int:
        """The byte of the .rec at which the next image's record begins."""
        return self._records.offset

    @property
    def crc(self) -> int:
        """CRC-32 of what the last image's record takes in the file."""
        return self._records.crc

    def _key_for(self, label: int) -> int:
        assert label in (self.identities - 1, self.identities), f"label {label} after {self.identities} identities"
        if label == self.identities:
            self._first_keys.append(self._next_key)
        self._next_key += 1
        return self._next_key - 1

    def __enter__(self) -> TrainingSetWriter:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the set, or leave nothing of it."""
        if kind is not None:
            self._records.discard()
            return
        with self._records:  # closed, or discarded where the block fails
            self._write_identities()
        self._write_property()

    def _write_identities(self) -> None:
        """Write record 0 and the records of the identities.

        Above 2**24 not every key is a float32. What record 0 says is then the nearest one below, so that other
        readers lose an image or two of the last identity, and never take an identity record for an image.
        """
        end = self._next_key
        stated = np.float32(end)
        if int(stated) > end:
            stated = np.nextafter(stated, np.float32(0))
        self._records.write(0, np.array([stated, end + self.identities], np.float32), b"")
        stops = [*self._first_keys[1:], end]
        for number, span in enumerate(zip(self._first_keys, stops)):
            self._records.write(end + number, np.array(span, np.float32), b"")

    def _write_property(self) -> None:
        text = f"{self.identities},{self.image_size},{self.image_size}\n"
        paths = [self.path.with_suffix(".property")]
        if list(self.path.parent.glob("*.rec")) == [self.path]:
            paths.append(self.path.with_name("property"))
        for path in paths:
            try:
                path.write_text(text, encoding="ascii")
            except OSError as error:
                raise DataError(f"{path}: cannot be written: {error.strerror}") from None
