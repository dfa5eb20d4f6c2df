"""A folder of photographs to a folder of aligned faces."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from arcdist.data.alignment import TEMPLATE_SIZE_PX, align_face
from arcdist.data.decode import decode
from arcdist.data.image_lists import files_in
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.detectors import DETECTORS, Detector, Face
from arcdist.prepare.landmarks import read_landmarks
from arcdist.runtime.ordered import map_in_order
from arcdist.runtime.progress import track

_IMAGES_AHEAD = 8


def _largest(face: Face, center: np.ndarray) -> float:
    return face.area


def _most_central(face: Face, center: np.ndarray) -> float:
    return -float(np.square((face.box[:2] + face.box[2:]) / 2 - center).sum())


CHOICES: dict[str, Callable[[Face, np.ndarray], float]] = {"largest": _largest, "central": _most_central}
"""How good a face is, given the center of the image; of several the best is taken."""


@dataclass
class AlignConfig:
    """What is aligned, and how."""

    images: str = field(metadata={"help": "folder of photographs, at any depth"})
    output: str = field(metadata={"help": "folder for the faces, which keep their paths in it"})
    landmarks: str = field(
        default="", metadata={"help": "file of lines 'path x y x y x y x y x y'; no detector is asked then"}
    )
    detector: str = field(default="mtcnn", metadata={"help": "mtcnn or yunet; weights come with arcdist[align]"})
    model: str = field(
        default="", metadata={"help": "other weights: YuNet's ONNX file, or a folder of pnet, rnet and onet.onnx"}
    )
    face: str = field(default="largest", metadata={"help": "which of several faces is taken: largest or central"})
    image_size: int = field(default=TEMPLATE_SIZE_PX, metadata={"help": "height and width in pixels of a face"})
    format: str = field(default="jpg", metadata={"help": "jpg or png"})
    quality: int = field(default=95, metadata={"help": "JPEG quality, 1 to 100"})
    resume: bool = field(default=False, metadata={"help": "keep the faces that are there, and find the others"})
    workers: int = field(default=4, metadata={"help": "threads, each with a detector"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for the first value that cannot be right."""
        for key, choices in (("detector", tuple(DETECTORS)), ("face", tuple(CHOICES)), ("format", ("jpg", "png"))):
            if getattr(self, key) not in choices:
                raise ConfigError(f"{key}: {getattr(self, key)!r}: must be {' or '.join(choices)}")
        for key, value, most in (
            ("image_size", self.image_size, 4096),
            ("quality", self.quality, 100),
            ("workers", self.workers, 1024),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f"{key}: {value}: must be 1 to {most}")
        if Path(self.output).resolve() == Path(self.images).resolve():
            raise ConfigError(f"output: {self.output}: is the folder of the photographs; they would be overwritten")


@dataclass
class AlignReport:
    """What `align` did; ``dataclasses.asdict`` gives JSON. Names are paths in the folder of photographs."""

    images: int = 0
    aligned: int = 0
    kept: int = 0
    """Faces that were there before, of which only ``resume`` knows."""
    several_faces: list[str] = field(default_factory=list)
    """Images with several faces, of which one was taken."""
    no_face: list[str] = field(default_factory=list)
    """Images in which no face was found, or for which the landmark file has no line."""
    unreadable: list[str] = field(default_factory=list)
    """Why each image that cannot be decoded could not."""
    seconds: float = 0.0


def align(config: AlignConfig) -> AlignReport:
    """Return what was written to ``output``: one face for each image in which one was found, under the image's path.

    A face is written aside and then takes its name, so that an aligned folder holds whole images only, also after a
    kill; ``resume`` goes on from there.

    Raises:
        ConfigError: no weights for the detector.
        DataError: no image, two images whose faces would have one name, a damaged landmark file, an output that
            cannot be written.
    """
    config.validate()
    began = time.monotonic()
    root, output = Path(config.images), Path(config.output)
    faces = _faces_of(root, output, config.format)
    known = read_landmarks(Path(config.landmarks)) if config.landmarks else None
    local = threading.local()
    if known is None:
        DETECTORS[config.detector](config.model)  # says what is missing before any thread starts

    def one(item: tuple[Path, Path]) -> tuple[str, str]:
        if known is None and not hasattr(local, "detector"):
            local.detector = DETECTORS[config.detector](config.model)
        return _align_one(item, root, config, known, getattr(local, "detector", None))

    report = AlignReport(images=len(faces))
    try:
        with ThreadPoolExecutor(config.workers) as pool:
            results = map_in_order(pool, one, list(faces.items()), _IMAGES_AHEAD * config.workers)
            for what, name in track(results, "aligning", len(faces), config.progress):
                if what in ("aligned", "several_faces"):
                    report.aligned += 1
                if what == "kept":
                    report.kept += 1
                elif what != "aligned":
                    getattr(report, what).append(name)
    except OSError as error:
        raise DataError(f"{error.filename or output}: cannot be written: {error.strerror}") from None
    report.seconds = time.monotonic() - began
    return report


def _align_one(
    item: tuple[Path, Path],
    root: Path,
    config: AlignConfig,
    known: "dict[str, np.ndarray] | None",
    detector: "Detector | None",
) -> tuple[str, str]:
    """Write the face of an image; return the field of the report that it belongs to, and what is added there."""
    source, target = item
    name = source.relative_to(root).as_posix()
    if config.resume and target.exists():
        return "kept", name
    try:
        image = decode(source.read_bytes(), name)
    except OSError as error:
        return "unreadable", f"{name}: cannot be read: {error.strerror}"
    except DataError as error:
        return "unreadable", str(error)
    what = "aligned"
    if detector is None:
        landmarks = (known or {}).get(name)
    else:
        faces = detector.detect(image)
        center = np.array([image.shape[1], image.shape[0]]) / 2
        landmarks = max(faces, key=lambda face: CHOICES[config.face](face, center)).landmarks if faces else None
        what = "several_faces" if len(faces) > 1 else what
    if landmarks is None:
        return "no_face", name
    face = align_face(image, landmarks, config.image_size)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, config.quality] if config.format == "jpg" else []
    encoded = cv2.imencode(target.suffix, face[:, :, ::-1], parameters)[1].tobytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")  # hidden, so no pack takes it for an image
    try:
        aside.write_bytes(encoded)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return what, name


def _faces_of(root: Path, output: Path, suffix: str) -> dict[Path, Path]:
    """Return where the face of each image goes; hidden files and folders, and faces of before, are passed over."""
    inside = Path(os.path.relpath(output.resolve(), root.resolve()))
    faces: dict[Path, Path] = {}
    sources: dict[Path, Path] = {}
    for name in map(Path, files_in(root)):
        if inside in name.parents:
            continue
        source = root / name
        faces[source] = target = output / name.with_suffix(f".{suffix}")
        if target in sources:
            raise DataError(f"{source}: its face would have the name of {sources[target].name}'s; rename one")
        sources[target] = source
    if not faces:
        raise DataError(f"{root}: holds no image outside of {output}")
    return faces
