"""The files of MegaFace challenge 1 (and of Trillion-Pairs and LFR19, which took its binary form): features and lists.

Seen in the original: the noise lists and the probes' names. The JSON lists are read as the devkit's users read them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.lists import read_lines

_HEADER = struct.Struct("<4i")  # rows, columns, stride, OpenCV's type
_DTYPES = {5: np.dtype("<f4"), 6: np.dtype("<f8")}


@dataclass(frozen=True, eq=False)
class ImageList:
    """A list of the devkit: N paths, and for probes whose they are."""

    paths: list[str]
    people: list[str] | None


def read_matrix(path: str | Path) -> npt.NDArray[np.floating]:
    """Return the matrix of a feature file, ``[rows, columns]``, float32 or float64.

    MegaFace has a file an image, ``[D, 1]``; Trillion-Pairs and LFR19 have one for all, ``[N, D]``. A float64 file may
    state the stride of float32, as the devkit's ``matio.py`` writes it.

    Raises DataError for a file that is missing, of another form, or not as long as its header says.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) < _HEADER.size:
        raise DataError(f"{path}: {len(content)} bytes, shorter than the header of a feature file ({_HEADER.size})")
    rows, columns, stride, kind = _HEADER.unpack_from(content)
    dtype = _DTYPES.get(kind)
    if dtype is None or rows < 1 or columns < 1 or stride not in (4 * columns, columns * dtype.itemsize):
        raise DataError(
            f"{path}: its header says {rows} rows, {columns} columns, stride {stride}, type {kind}; a feature file has "
            "a stride of 4 bytes a column and type 5 (float32), or type 6 (float64)"
        )
    expected = rows * columns * dtype.itemsize
    if len(content) != _HEADER.size + expected:
        raise DataError(
            f"{path}: {len(content)} bytes, but {rows}×{columns} {dtype.name} need {_HEADER.size + expected}"
        )
    return np.frombuffer(content, dtype, offset=_HEADER.size).reshape(rows, columns)


def write_matrix(path: str | Path, matrix: npt.ArrayLike) -> None:
    """Write ``[rows, columns]`` as a float32 feature file: what the servers of Trillion-Pairs and LFR19 took.

    Raises DataError for what is no finite matrix, and a file that cannot be written.
    """
    matrix = np.asarray(matrix, dtype="<f4")
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise DataError(f"{path}: a finite matrix [rows, columns] is needed, this one is {matrix.shape}")
    try:
        with open(path, "wb") as file:
            file.write(_HEADER.pack(*matrix.shape, 4 * matrix.shape[1], 5))
            matrix.tofile(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def read_features(folder: str | Path, paths: Sequence[str], ending: str) -> npt.NDArray[np.float32]:
    """Return the embeddings of a list's images, ``[N, D]`` float32, from a file an image, ``folder/path + ending``.

    Raises DataError where one is missing, is no vector, or has another length than the first.
    Memory: the result only, 2 GB for a million of 512 dimensions.
    """
    if not paths:
        raise DataError(f"{folder}: the list has no images")
    features = np.empty((0, 0), np.float32)
    for row, name in enumerate(paths):
        file = f"{Path(folder, name)}{ending}"
        vector = read_matrix(file)
        if 1 not in vector.shape:
            raise DataError(f"{file}: entry {row + 1} is a matrix {list(vector.shape)}, not the vector of one image")
        if not row:
            features = np.empty((len(paths), vector.size), np.float32)
        if vector.size != features.shape[1]:
            raise DataError(f"{file}: entry {row + 1} has {vector.size} dimensions, the first one {features.shape[1]}")
        features[row] = vector.ravel()
    return features


def read_image_list(path: str | Path) -> ImageList:
    """Return a list of the devkit, ``facescrub_features_list.json`` or ``megaface_features_list.json_1000000_1``.

    A JSON object with ``path`` and, for probes, ``id``, both lists. Raises DataError for anything else, lists of two
    lengths and an image that is listed twice.
    """
    try:
        content = json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is no JSON: {error.msg}") from None
    paths = content.get("path") if isinstance(content, dict) else None
    people = content.get("id") if isinstance(content, dict) else None
    if not isinstance(paths, list) or not paths or not all(isinstance(each, str) for each in paths):
        raise DataError(f"{path}: has no list of strings 'path'")
    if people is not None and (not isinstance(people, list) or len(people) != len(paths)):
        raise DataError(f"{path}: 'id' is no list of {len(paths)} entries, one for each 'path'")
    entry_of: dict[str, int] = {}
    for entry, name in enumerate(paths, 1):
        if entry_of.setdefault(name, entry) != entry:
            raise DataError(f"{path}: entry {entry}: image {name} is entry {entry_of[name]} already")
    return ImageList(paths, [str(each) for each in people] if people is not None else None)


def read_noises(path: str | Path) -> set[str]:
    """Return the names of a noise list of insightface; what follows a tab is left out, and so are lines with ``#``."""
    names = {line.split("\t")[0].strip() for line in read_lines(path) if not line.startswith("#")}
    return names - {""}


def noisy_images(paths: Sequence[str], noises: set[str], match: Literal["path", "stem"]) -> npt.NDArray[np.bool_]:
    """Return ``[N]``, which images a noise list names.

    Args:
        match: ``path`` for MegaFace's images, three parts, whose base names need not be unique; ``stem`` for
            FaceScrub's, whose list has ``.png`` names while many copies of the images are ``.jpg``.
    """
    if match not in ("path", "stem"):
        raise ConfigError(f"match: {match!r}: must be 'path' or 'stem'")
    if match == "path":
        return np.array([path in noises for path in paths], dtype=bool)
    stems = {PurePosixPath(name).stem for name in noises}
    return np.array([PurePosixPath(path).stem in stems for path in paths], dtype=bool)
