"""The images of a .rec file, whichever of the field's tools wrote it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.data.decode import decode
from arcdist.data.local_cache import LocalCache
from arcdist.data.recordio import Record, RecordReader
from arcdist.errors import DataError

MAX_CLASSES = 1 << 24
"""As many classes as the float32 label of a record can tell apart."""


class RecordDataset:
    """Labels and encoded images of a .rec file by sample, 0 .. n − 1; one object may serve threads and processes.

    Three layouts are told apart. insightface's: record 0 has flag 2, label ``[end, stop]`` and no payload; images
    have the keys 1 .. end − 1, and the records end .. stop − 1 say which images an identity has. One without a header
    (im2rec, shuffle_rec): every record of the index is an image. One without .idx: every record is an image that is
    not such a header or identity record. A label array's first value is the class. Samples follow the keys.

    The number of classes and the image size come from the first line of ``NAME.property`` beside the file, or of
    ``property`` in its folder (``classes,height,width``); else from the header and the first image; where there is
    neither, one pass over all labels finds the largest.

    Args:
        path: the .rec file.
        cache: where copies of parts of it may be; none by default.

    Raises:
        DataError: damaged files; no image; more classes than `MAX_CLASSES`; a label that is no class.

    Memory: 16 to 24 bytes an image.
    """

    def __init__(self, path: "str | os.PathLike[str]", cache: "LocalCache | None" = None) -> None:
        self.path = Path(path)
        self.reader = RecordReader(path, cache=cache)
        images = _find_images(self.reader)
        self.keys = images.keys
        """The key of every sample's record, int64 ``[n]``, ascending."""
        if len(self.keys) == 0:
            hint = f"; the index ({self.reader.index_path}) may be of another file" if self.reader.index_path else ""
            raise DataError(f"{self.path}: holds no image ({len(self.reader)} records){hint}")
        self.stated = find_property(self.path)
        """What a property file says, None where there is none."""
        self.listed_classes = images.num_classes
        """How many classes record 0 lists, None where it lists none."""
        if self.stated:
            self.image_size = (self.stated.height, self.stated.width)
            self.num_classes = self.stated.num_classes
            source = f"{self.stated.path.name} says"
            if self.listed_classes not in (None, self.num_classes):
                source += f" (the header lists {self.listed_classes})"
        else:
            height, width, _ = decode(self.reader[self.key(0)].payload, self.name(0)).shape
            self.image_size = (height, width)
            self.num_classes = self.listed_classes or int(self._labels_below(MAX_CLASSES).max()) + 1
            source = "the header says" if self.listed_classes else "the largest label says"
        self.classes_source = source
        """Words for messages: who says how many classes there are."""
        if self.num_classes > MAX_CLASSES:
            raise DataError(
                f"{self.path}: {self.num_classes} classes as {source}; the float32 labels of a .rec can tell "
                f"at most {MAX_CLASSES} apart"
            )
        self.layout = (
            f"{self.path.name}: {images.layout}; {self.num_classes} classes as {source}; "
            f"{height_by_width(self.image_size)} pixels"
        )
        """One sentence that says what was taken for what."""

    @property
    def title(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def parts(self) -> "list[RecordDataset]":
        """Itself."""
        return [self]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.keys)

    def read(self, sample: int) -> tuple[int, bytes]:
        """Return the label and the encoded image of a sample.

        Raises:
            DataError: a damaged record, or a label that is not one of 0 .. num_classes − 1.
        """
        record = self.reader[self.key(sample)]
        return self.class_of(sample, record), record.payload

    def class_of(self, sample: int, record: Record) -> int:
        """Return the label of a sample's record.

        Raises:
            DataError: a label that is not one of 0 .. num_classes − 1.
        """
        label = record.first_label
        if not (0 <= label < self.num_classes and label == int(label)):
            raise self._wrong_label(sample, label, self.num_classes)
        return int(label)

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 ``[n]``, in one pass over the headers.

        Raises:
            DataError: a damaged record, or a label that is not one of 0 .. num_classes − 1.
        """
        return self._labels_below(self.num_classes)

    def key(self, sample: int) -> int:
        """Return the key of the record of a sample."""
        return int(self.keys[sample])

    def name(self, sample: int) -> str:
        """Return words for messages, such as ``train.rec record 17``."""
        return f"{self.path.name} record {self.key(sample)}"

    def close(self) -> None:
        """Give the file back."""
        self.reader.close()

    def __enter__(self) -> "RecordDataset":
        """Return the set, whose file is given back at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; where the keys are a part of the index, which part."""
        state, keys = dict(vars(self)), self.reader.sorted_keys()
        first = int(np.searchsorted(keys, self.keys[0]))
        if np.shares_memory(keys, self.keys):
            state["keys"] = slice(first, first + len(self.keys))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again."""
        vars(self).update(state)
        if isinstance(state["keys"], slice):
            self.keys = self.reader.sorted_keys()[state["keys"]]

    def _labels_below(self, num_classes: int) -> np.ndarray:
        labels = self.reader.headers(self.keys).label
        wrong = ~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels)))  # NaN is wrong too
        if wrong.any():
            sample = int(wrong.argmax())
            raise self._wrong_label(sample, float(labels[sample]), num_classes)
        return labels.astype(np.int64)

    def _wrong_label(self, sample: int, label: float, num_classes: int) -> DataError:
        says = f", as {self.stated.path.name} says" if self.stated else ""
        return DataError(
            f"{self.path}: record {self.key(sample)}: label is {label:.9g}, which is no class of "
            f"0..{num_classes - 1}{says}"
        )


@dataclass(frozen=True)
class Property:
    """What a ``property`` file says of a set."""

    num_classes: int
    height: int
    width: int
    path: Path


def find_property(rec_path: Path) -> "Property | None":
    """Return what ``NAME.property``, or else ``property`` in the folder, says; None where there is neither.

    Only the first line counts: shuffled sets have more (a number of images, the word "shuffled", a date).
    """
    for path in (rec_path.with_suffix(".property"), rec_path.with_name("property")):
        if path.is_file():
            try:
                line = (path.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0]
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            try:
                num_classes, height, width = (int(value) for value in line.split(","))
            except ValueError:
                num_classes = height = width = 0
            if min(num_classes, height, width) < 1:
                raise DataError(f"{path}: the first line is {line[:80]!r}, not 'classes,height,width'")
            return Property(num_classes, height, width, path)
    return None


def height_by_width(size: tuple[int, int]) -> str:
    """Return a size as words."""
    return f"{size[0]}×{size[1]}"


@dataclass(frozen=True, eq=False)
class _Images:
    keys: np.ndarray
    num_classes: "int | None"
    layout: str


def _find_images(reader: RecordReader) -> _Images:
    """Return which records are images, how many classes a header states, and both in words."""
    keys = reader.sorted_keys()
    if reader.index_path is None:
        headers = reader.headers(keys)
        listing = (headers.flag == 2) & (headers.payload_bytes == 0)
        return _Images(
            keys[~listing] if listing.any() else keys,
            None,
            f"no index, so it was scanned and record n is the n-th of the file: {(~listing).sum()} images, "
            f"{listing.sum()} header and identity records",
        )
    if 0 not in reader:
        return _Images(keys, None, f"no record 0: all {len(keys)} records of the index are images")
    header = reader[0]
    if header.flag != 2 or header.payload:
        return _Images(keys, None, f"record 0 is no header: all {len(keys)} records of the index are images")
    end, stop = (float(value) for value in np.asarray(header.label))
    if not (end.is_integer() and stop.is_integer() and 1 <= end <= stop):
        raise DataError(
            f"{reader.path}: record 0 has flag 2, no payload and label [{end:.9g}, {stop:.9g}]; a header's label is "
            "the key of the first identity record and one past the last's"
        )
    end = _end_of_images(reader, int(end))
    first, last = np.searchsorted(keys, (1, end))
    identities = len(keys) - int(last)
    where = "first in the file" if reader.offset(0) == 0 else "not first in the file"
    return _Images(
        keys[first:last],
        (int(stop) - end if stop < MAX_CLASSES else identities) or None,
        f"record 0 is insightface's header ({where}): {last - first} images have the keys 1..{end - 1}, {identities} "
        "identity records follow",
    )


def _end_of_images(reader: RecordReader, stated: int) -> int:
    """Return one past the last image's key, which the header's float32 states a little wrong above 2**24."""
    if stated <= MAX_CLASSES:
        return stated
    reach = int(np.spacing(np.float32(stated)))
    near = (key for key in range(stated + reach, stated - reach - 1, -1) if key in reader)
    return next((key + 1 for key in near if reader[key].payload), stated)
