"""MTCNN: three small nets, each of which refines what the one before found.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks" (2016); the nets are
run by OpenCV and take images with x before y, as those of the authors' MATLAB do.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

_SMALLEST_FACE_PX = 20
_SCALE_STEP = 0.709
_PNET_CELL_PX, _PNET_STRIDE_PX = 12, 2
_SCORES = (0.6, 0.7, 0.7)


class MTCNN:
    """Calling it gives ``(box [4], landmarks [5, 2], score)`` of each face of an RGB image, uint8 ``[H, W, 3]``."""

    def __init__(self, folder: Path) -> None:
        self._pnet, self._rnet, self._onet = (
            cv2.dnn.readNetFromONNX(str(folder / f"{name}.onnx")) for name in ("pnet", "rnet", "onet")
        )

    def __call__(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Yield the faces, the best first."""
        boxes = _square(self._propose(image))
        if len(boxes):
            shift, score = _forward(self._rnet, _crops(image, boxes, 24), ["dense_2", "softmax_1"])
            boxes, score, shift = _keep(boxes, score[:, 1], shift, _SCORES[1], 0.7)
            boxes = _square(_shifted(boxes, shift))
        if not len(boxes):
            return
        shift, points, score = _forward(self._onet, _crops(image, boxes, 48), ["dense_5", "dense_6", "softmax_2"])
        size = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        landmarks = np.stack([points[:, :5], points[:, 5:]], 2) * size + boxes[:, None, :2] - 1
        passed = score[:, 1] > _SCORES[2]
        boxes, landmarks, scores = _shifted(boxes, shift)[passed], landmarks[passed], score[passed, 1]
        for row in _suppress(boxes, scores, 0.7, of_smaller=True):
            yield boxes[row], landmarks[row], float(scores[row])

    def _propose(self, image: np.ndarray) -> np.ndarray:
        """Return boxes ``[n, 4]`` that the first net finds in a pyramid of the image."""
        found = []
        scale = _PNET_CELL_PX / _SMALLEST_FACE_PX
        while min(image.shape[:2]) * scale >= _PNET_CELL_PX:
            height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
            smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            shift, score = _forward(self._pnet, smaller[None], ["conv2d_4", "softmax"])
            columns, rows = np.nonzero(score[0, :, :, 1] >= _SCORES[0])
            corner = _PNET_STRIDE_PX * np.column_stack([columns, rows]) + 1
            boxes = np.trunc(np.hstack([corner, corner + _PNET_CELL_PX - 1]) / scale)
            found.append(_keep(boxes, score[0, columns, rows, 1], shift[0, columns, rows], 0.0, 0.5))
            scale *= _SCALE_STEP
        if not found:
            return np.empty((0, 4))
        boxes, score, shift = (np.concatenate(parts) for parts in zip(*found))
        boxes, _, shift = _keep(boxes, score, shift, 0.0, 0.7)
        return boxes + shift * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _forward(net: "cv2.dnn.Net", images: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """Return a net's outputs for RGB images ``[n, H, W, 3]``."""
    net.setInput((images.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128)
    return list(net.forward(outputs))


def _keep(
    boxes: np.ndarray, score: np.ndarray, shift: np.ndarray, least: float, overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return those that score above ``least`` and are not covered by a better one."""
    rows = np.flatnonzero(score > least)
    rows = rows[_suppress(boxes[rows], score[rows], overlap)]
    return boxes[rows], score[rows], shift[rows]


def _suppress(boxes: np.ndarray, score: np.ndarray, overlap: float, of_smaller: bool = False) -> list[int]:
    """Return the rows, the best first, without those that a better one covers.

    ``overlap`` is the most that two may share, of their union, or of the smaller one.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    left = np.argsort(-score, kind="stable")
    kept = []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.prod(np.maximum(high - low + 1, 0), axis=1)
        whole = np.minimum(area[best], area[left]) if of_smaller else area[best] + area[left] - shared
        left = left[shared <= overlap * whole]
    return kept


def _shifted(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return boxes + shift * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _square(boxes: np.ndarray) -> np.ndarray:
    """Return the squares around the same centers, with whole pixels."""
    size = boxes[:, 2:] - boxes[:, :2]
    corner = boxes[:, :2] + (size - size.max(1, keepdims=True, initial=0)) / 2
    return np.trunc(np.hstack([corner, corner + size.max(1, keepdims=True, initial=0)]))


def _crops(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Return what is in the boxes, black beyond the image, scaled to ``[n, side, side, 3]``; pixels count from 1."""
    crops = np.zeros((len(boxes), side, side, 3), np.float32)
    height, width = image.shape[:2]
    for crop, (left, top, right, bottom) in zip(crops, boxes.astype(int)):
        whole = np.zeros((bottom - top + 1, right - left + 1, 3), np.float32)
        x0, y0, x1, y1 = max(left, 1), max(top, 1), min(right, width), min(bottom, height)
        if x0 <= x1 and y0 <= y1:
            whole[y0 - top : y1 - top + 1, x0 - left : x1 - left + 1] = image[y0 - 1 : y1, x0 - 1 : x1]
        crop[:] = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
    return crops
