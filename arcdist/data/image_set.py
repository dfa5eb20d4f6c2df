"""What a set of training images is to those that read it, whether one file, a folder or several of them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class ImageSet(Protocol):
    """Encoded images of one size by sample, 0 .. n − 1, each with a label, 0 .. num_classes − 1; threads share it."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """The height and width in pixels of every image."""
        ...

    @property
    def layout(self) -> str:
        """One sentence that says what was taken for what."""
        ...

    @property
    def title(self) -> str:
        """Words for messages: the path, or the paths."""
        ...

    @property
    def parts(self) -> "Sequence[ImageSet]":
        """The sets whose samples follow each other in this one; itself where it is one."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, sample: int, /) -> tuple[int, bytes]:
        """Return the label and the encoded image; DataError where it cannot be read."""
        ...

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 ``[n]``."""
        ...

    def name(self, sample: int, /) -> str:
        """Return words for messages."""
        ...

    def close(self) -> None:
        """Give the files back."""
        ...
