"""The faces that are at hand, by name: rows of a file of embeddings, or the images of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError

Ints = npt.NDArray[np.int64]


class FaceIndex:
    """Names of N faces, row by row, and their labels.

    Args:
        names: ``[N]``, paths within a folder, or keys of records.
        labels: ``[N]``, empty where a face has none.
        source: the file or folder, for messages.
    """

    def __init__(self, names: Sequence[str], labels: Sequence[str], source: str) -> None:
        self.names, self.labels, self.source = names, labels, source

    def __len__(self) -> int:
        """Return N."""
        return len(self.names)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def _row_of_stem(self) -> dict[str, int]:
        return {_stem(name): row for row, name in enumerate(self.names)}

    def rows(self, names: Sequence[str], path: object, each: int = 1) -> Ints:
        """Return ``[n]``, the row of each name of a list; a file of another suffix (.png for .jpg) will do.

        Args:
            path: the list, for messages.
            each: names of an entry of the list.

        Raises DataError where one is missing: no image is passed over.
        """
        rows = [self._row_of.get(name, -1) for name in names]
        if -1 in rows:
            rows = [self._row_of_stem.get(_stem(name), -1) if row < 0 else row for row, name in zip(rows, names)]
        if -1 in rows:
            first = rows.index(-1)
            raise DataError(
                f"{path}: entry {first // each + 1}: {self.source} has no {names[first]}; {rows.count(-1)} of "
                f"{len(rows)} are missing. It has {self.names[0]} and the like: names are paths within the folder "
                "that was embedded"
            )
        return np.array(rows, dtype=np.int64)

    def under(self, folders: Sequence[str], path: object) -> tuple[Ints, list[str]]:
        """Return the rows of all faces in these folders, and the folder of each.

        Raises DataError for a folder without a face.
        """
        wanted = set(folders)
        folder_of = [str(PurePosixPath(name).parent) for name in self.names]
        rows = [row for row, folder in enumerate(folder_of) if folder in wanted]
        found = [folder_of[row] for row in rows]
        missing = wanted - set(found)
        if missing:
            first = next(folder for folder in folders if folder in missing)
            raise DataError(
                f"{path}: {self.source} has no face in {first}; {len(missing)} of {len(wanted)} folders are missing. "
                f"It has {self.names[0]} and the like"
            )
        return np.array(rows, dtype=np.int64), found


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "/" not in suffix else name
