"""Some of the images of a list, aligned on the way where landmarks are known."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from arcdist.data.alignment import align_face
from arcdist.data.decode import decode
from arcdist.data.image_lists import ImageList
from arcdist.evaluate.face_index import Ints


class ImageSubset:
    """The images of a list at these rows, in their order; an image list itself.

    Args:
        landmarks: by row, ``[5, 2]`` in pixels; those images are warped to the template and handed on as PNGs.
        size: height and width of the warped ones.
    """

    def __init__(
        self,
        images: ImageList,
        rows: Ints,
        landmarks: Mapping[int, npt.NDArray[np.float64]] | None = None,
        size: int = 112,
    ) -> None:
        names = images.names
        self._images, self._rows, self._landmarks, self._size = images, rows.tolist(), landmarks or {}, size
        self.names = [names[row] for row in self._rows]

    def labels(self) -> list[str]:
        """Return the label of every image."""
        every = self._images.labels()
        return [every[row] for row in self._rows]

    def read(self, image: int) -> bytes:
        """Return the encoded image."""
        row = self._rows[image]
        payload = self._images.read(row)
        if row not in self._landmarks:
            return payload
        face = align_face(decode(payload, self.where(image)), self._landmarks[row], self._size)
        return cv2.imencode(".png", face[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()

    def where(self, image: int) -> str:
        """Return words for messages."""
        return self._images.where(self._rows[image])

    def stamp(self, image: int) -> str:
        """Return what changes when the image does."""
        points = self._landmarks.get(self._rows[image])
        return self._images.stamp(self._rows[image]) + ("" if points is None else f" {points.tolist()}")
