"""Which images of a set are trained on: by identity, by number of images, by a list of records."""

import warnings
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.data.datasets import RecordDataset
from arcdist.data.image_set import ImageSet
from arcdist.data.paths import check_paths, listed
from arcdist.errors import ConfigError, DataError
from arcdist.runtime.seeds import uniform

SIDES = ("train", "held_out")
_SPLIT_SEED = 0  # not the run's: runs of several seeds are compared on the same identities


@dataclass
class SelectConfig:
    """What is kept of a set. The identities that are kept are numbered anew, without gaps, in their old order."""

    classes: list[int] = field(
        default_factory=list, metadata={"help": "first label and one past the last that are kept; empty: all"}
    )
    min_images: int = field(default=0, metadata={"help": "identities with fewer images are left out"})
    clean_list: Any = field(
        default="",
        metadata={"help": "file of the record keys that are kept, one a line; a list of them for several paths"},
    )
    held_out: float = field(default=0.0, metadata={"help": "share of the identities that are kept from training"})
    side: str = field(default="train", metadata={"help": "train | held_out: which of the two are read"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.classes and not (len(self.classes) == 2 and 0 <= self.classes[0] < self.classes[1]):
            raise ConfigError(f"data.select.classes: {list(self.classes)}: must be a first label and one past the last")
        check_paths("data.select.clean_list", self.clean_list)
        if self.min_images < 0:
            raise ConfigError(f"data.select.min_images: {self.min_images}: must be 0 or more")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.select.held_out: {self.held_out}: must be in [0, 1), a share of the identities")
        if self.side not in SIDES:
            raise ConfigError(f"data.select.side: {self.side!r}: must be one of {', '.join(SIDES)}")

    @property
    def selects(self) -> bool:
        """Whether anything may be left out."""
        return bool(self.classes or self.min_images or self.clean_list or self.held_out or self.side != "train")

    def keep(self, dataset: ImageSet, labels: np.ndarray) -> np.ndarray:
        """Return which samples are kept, bool ``[n]``.

        Args:
            dataset: the whole set.
            labels: who each of its samples is, below its ``num_classes``; its own labels, or some of them joined.

        The clean lists come first, then the classes, then the number of images, of what is left by then; who is held
        out depends on the label alone, so that it stays so whatever else is left out.

        Errors: DataError for a list that cannot be read or names no record of its set; ConfigError for as many lists
            as there are no sets.
        """
        kept = np.ones(len(labels), np.bool_)
        if self.clean_list:
            kept &= np.concatenate(self._clean(dataset))
        if self.classes:
            kept &= (labels >= self.classes[0]) & (labels < self.classes[1])
        if self.min_images:
            kept &= np.bincount(labels[kept], minlength=dataset.num_classes)[labels] >= self.min_images
        held_out = uniform(_SPLIT_SEED, "held_out", np.arange(dataset.num_classes)) < self.held_out
        kept &= held_out[labels] == (self.side == "held_out")
        return kept

    def _clean(self, dataset: ImageSet) -> list[np.ndarray]:
        """Return for each part of the set which of its samples its clean list has; all, where it has no list."""
        paths = listed(self.clean_list)
        if len(paths) != len(dataset.parts):
            raise ConfigError(
                f"data.select.clean_list: {len(paths)} lists for {len(dataset.parts)} sets of data.path; give one for "
                "each, '' for one that is kept whole"
            )
        return [
            _listed_in(path, part) if path else np.ones(len(part), np.bool_) for path, part in zip(paths, dataset.parts)
        ]


class Selection:
    """Some of the images of a set, as a set of their own.

    Memory: 4 bytes an image that is kept, 4 a class of the whole set.

    Errors: DataError where nothing is left.
    """

    def __init__(self, whole: ImageSet, config: SelectConfig) -> None:
        labels = whole.labels()
        kept = config.keep(whole, labels)
        if not kept.any():
            raise DataError(f"{whole.title}: data.select leaves none of its {len(whole)} images")
        self.whole = whole
        self.image_size = whole.image_size
        ends = accumulate(len(part) for part in whole.parts)
        self.part_sizes = np.diff([0, *(int(kept[:end].sum()) for end in ends)]).tolist()
        """How many images are kept of each part of the whole set."""
        self.samples = np.flatnonzero(kept).astype(np.uint32)
        """Which of the whole set's samples each one is, ``[n]``."""
        present = np.bincount(labels[kept], minlength=whole.num_classes) > 0
        self._new_label = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
        self.num_classes = int(present.sum())
        self.layout = f"{whole.layout}; {len(self)} images of {self.num_classes} identities are kept"

    def __len__(self) -> int:
        """Return the number of images that are kept."""
        return len(self.samples)

    def read(self, sample: int) -> tuple[int, bytes]:
        """Return the new label and the encoded image; errors are those of the whole set."""
        label, payload = self.whole.read(int(self.samples[sample]))
        return int(self._new_label[label]), payload

    def name(self, sample: int) -> str:
        """Return words for messages."""
        return self.whole.name(int(self.samples[sample]))

    def labels(self) -> np.ndarray:
        """Return the new label of every image that is kept, int64 ``[n]``."""
        return self._new_label[self.whole.labels()[self.samples]].astype(np.int64)

    def close(self) -> None:
        """Give the file back."""
        self.whole.close()


def _listed_in(path: str, part: ImageSet) -> np.ndarray:
    if not isinstance(part, RecordDataset):
        raise ConfigError(f"data.select.clean_list: {path}: {part.title} has no records whose keys it could list")
    keys = read_clean_list(path)
    if not len(keys):
        raise DataError(f"{path}: lists no record of {part.title}")
    strange = ~np.isin(keys, part.keys)
    if strange.any():
        raise DataError(
            f"{path}: {strange.sum()} of its {len(keys)} keys are no image of {part.title} (the first: "
            f"{keys[strange][0]}); it is the list of another file"
        )
    return np.isin(part.keys, keys)


def read_clean_list(path: "str | Path") -> np.ndarray:
    """Return the record keys of a clean list, int64 ``[n]``: the first word of each line; what follows # is a remark.

    Raises:
        DataError: a file that cannot be read, or a line that begins with no number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty list is the caller's to judge
            return np.loadtxt(path, np.int64, comments="#", usecols=0, ndmin=1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path}: is no list of record keys, one a line: {error}") from None
