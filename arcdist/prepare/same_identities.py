"""Lists of identities that are one person: two labels a line."""

import os
from pathlib import Path

import numpy as np

from arcdist.errors import DataError


def read_same(path: "str | os.PathLike[str]", num_classes: int) -> np.ndarray:
    """Return for each label the smallest one of the same person, int64 ``[num_classes]``.

    A line is two labels, whatever else after white space; what follows ``#`` is a remark.

    Errors: DataError for a file that cannot be read, another line, or a label that is no class.
    """
    path = Path(path)
    try:
        lines = [line.partition("#")[0].split()[:2] for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = np.array([(first, second) for first, second in filter(None, lines)], np.int64).reshape(-1, 2)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: is no list of two labels a line: {error}") from None
    wrong = (pairs < 0) | (pairs >= num_classes)
    if wrong.any():
        raise DataError(f"{path}: {pairs[wrong][0]}: is no label of 0..{num_classes - 1}")
    return joined(pairs, num_classes)


def joined(pairs: np.ndarray, num_classes: int) -> np.ndarray:
    """Return for each label the smallest one that it is joined with, directly or over others, int64 ``[num_classes]``.

    Args:
        pairs: int64 ``[n, 2]``, labels.
    """
    smallest = np.arange(num_classes)
    for first, second in pairs.tolist():
        while smallest[first] != first:
            first = smallest[first]
        while smallest[second] != second:
            second = smallest[second]
        smallest[max(first, second)] = min(first, second)
    while (smallest[smallest] != smallest).any():
        smallest = smallest[smallest]
    return smallest
