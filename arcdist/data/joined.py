"""Several sets of images as one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from arcdist.data.image_set import ImageSet
from arcdist.errors import DataError


class JoinedSet:
    """The images of several sets, one set after another, with labels of their own.

    Args:
        parts: the sets, of one image size.
        names: for each set the name of each of its classes: classes of one name become one. Empty: nobody is in two
            sets, and the classes of each follow those of the sets before.
        same_labels: a label means the same person in every set, as in a set that was cut into several files.

    Raises:
        DataError: sets of different image sizes.

    Memory: 4 bytes a class.
    """

    def __init__(
        self, parts: Sequence[ImageSet], names: Sequence[Sequence[str]] = (), same_labels: bool = False
    ) -> None:
        self.parts = list(parts)
        self.image_size = self.parts[0].image_size
        for part in self.parts:
            if part.image_size != self.image_size:
                sizes = " and ".join(f"{height}×{width}" for height, width in (self.image_size, part.image_size))
                raise DataError(f"{self.parts[0].title} and {part.title}: have images of {sizes} pixels; one is needed")
        self._starts = list(accumulate((len(part) for part in self.parts), initial=0))
        self._new_labels, self.num_classes = _new_labels([part.num_classes for part in self.parts], names, same_labels)
        shared = sum(part.num_classes for part in self.parts) - self.num_classes
        self.layout = (
            f"{'; '.join(part.layout for part in self.parts)}; together {len(self)} images of {self.num_classes} "
            f"classes, {shared} being in common"
        )

    @property
    def title(self) -> str:
        """The paths."""
        return " + ".join(part.title for part in self.parts)

    def __len__(self) -> int:
        """Return the number of images."""
        return self._starts[-1]

    def read(self, sample: int) -> tuple[int, bytes]:
        """Return the label and the encoded image; errors are those of the set that has it."""
        number, own = self._place(sample)
        label, payload = self.parts[number].read(own)
        return int(self._new_labels[number][label]), payload

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 ``[n]``."""
        return np.concatenate([new[part.labels()] for new, part in zip(self._new_labels, self.parts)]).astype(np.int64)

    def name(self, sample: int) -> str:
        """Return words for messages."""
        number, own = self._place(sample)
        return f"{self.parts[number].name(own)} (of {self.parts[number].title})"

    def close(self) -> None:
        """Give all files back."""
        for part in self.parts:
            part.close()

    def _place(self, sample: int) -> tuple[int, int]:
        """Return the set that has a sample, and which it is there."""
        number = bisect_right(self._starts, sample) - 1
        return number, sample - self._starts[number]


def _new_labels(
    counts: Sequence[int], names: Sequence[Sequence[str]], same_labels: bool
) -> tuple[list[np.ndarray], int]:
    """Return for each set the joined label of each of its classes, int32, and how many joined classes there are."""
    if names:
        numbers: dict[str, int] = {}
        found = [np.array([numbers.setdefault(name, len(numbers)) for name in own], np.int32) for own in names]
        return found, len(numbers)
    if same_labels:
        return [np.arange(count, dtype=np.int32) for count in counts], max(counts)
    starts = np.cumsum([0, *counts])
    return [np.arange(start, start + count, dtype=np.int32) for start, count in zip(starts, counts)], int(starts[-1])
