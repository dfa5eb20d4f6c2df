"""Rows of a batch, read, decoded and augmented into memory that they are given: what a thread or a process does."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from arcdist.data.augment import Augment
from arcdist.data.bad_records import BadRecords
from arcdist.data.decode import decode, decode_into


class Dataset(Protocol):
    """Encoded images by sample; threads read it at the same time."""

    def read(self, sample: int, /) -> tuple[int, bytes]:
        """Return the label, a global class id, and the encoded image."""
        ...

    def name(self, sample: int, /) -> str:
        """Return words for messages."""
        ...


class RowFiller:
    """Fills rows; threads share one, and it can be sent to a process.

    Args:
        dataset: the images.
        augment: what is done to each.
        bad_records: what is done about those that cannot be read.
        image_size: (height, width) of every image of the data set.
    """

    def __init__(
        self, dataset: Dataset, augment: Augment, bad_records: BadRecords, image_size: tuple[int, int]
    ) -> None:
        self.dataset, self.augment, self.bad_records, self.image_size = dataset, augment, bad_records, image_size

    def fill(self, images: np.ndarray, labels: np.ndarray, samples: np.ndarray, positions: np.ndarray) -> None:
        """Write the images, uint8 ``[n, h, w, 3]``, and labels, int64 ``[n]``, of samples at positions of the run.

        Images that are not of the data set's own size are made in the size that ``images`` has, a square.

        Raises:
            DataError: a sample cannot be read, or is not what it should be.
        """
        parameters = self.augment.draw(positions)
        own_size = images.shape[1:3] == tuple(self.image_size)
        fill: Callable[[int, int], None]
        if own_size and self.augment.only_flips:
            fill = partial(self._decode, images, labels, parameters["flip"].tolist())
        else:
            fill = partial(self._augment, images, labels, parameters, None if own_size else images.shape[1])
        for row, (sample, position) in enumerate(zip(samples.tolist(), positions.tolist())):
            self.bad_records.replace(partial(fill, row), sample, position)

    def _decode(self, images: np.ndarray, labels: np.ndarray, flip: list[bool], row: int, sample: int) -> None:
        """Decode into the row itself: what takes the interpreter's lock here is what threads wait for each other."""
        labels[row], payload = self.dataset.read(sample)
        image = images[row]
        decode_into(image, payload, partial(self.dataset.name, sample))
        if flip[row]:
            cv2.flip(image, 1, dst=image)

    def _augment(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        parameters: np.ndarray,
        size: "int | None",
        row: int,
        sample: int,
    ) -> None:
        labels[row], payload = self.dataset.read(sample)
        image = decode(payload, self.dataset.name(sample), self.image_size)
        images[row] = self.augment.apply(image, parameters[row], size)
