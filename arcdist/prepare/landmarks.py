"""Files of five landmarks an image."""

from pathlib import Path

import numpy as np

from arcdist.errors import DataError


def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Return the landmarks ``[5, 2]``, float64, of every image that the file names.

    A line is a path (which may hold spaces), then x and y in pixels of: left eye, right eye, nose, left and right
    corner of the mouth, as seen in the image. Lines that begin with ``#`` say nothing.

    Raises:
        DataError: a file that cannot be read, a line of another form, five points at one place, an image twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    landmarks: dict[str, np.ndarray] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *values = line.rsplit(maxsplit=10)
        try:
            points = np.array(values, np.float64)
        except ValueError:
            points = np.empty(0)
        if points.size != 10 or not np.isfinite(points).all() or np.ptp(points[::2]) + np.ptp(points[1::2]) == 0:
            raise DataError(f"{path}: line {number}: {line[:80]!r} is no path with five different points (ten numbers)")
        if name in landmarks:
            raise DataError(f"{path}: line {number}: {name} has landmarks on a line before")
        landmarks[name] = points.reshape(5, 2)
    return landmarks
