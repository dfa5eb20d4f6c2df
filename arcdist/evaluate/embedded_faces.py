"""The files of ``arcdist embed`` read again: embeddings, and whose each row is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from arcdist.errors import DataError
from arcdist.evaluate.face_index import FaceIndex, Ints

_HEADER = "name\tlabel"


@dataclass(frozen=True, eq=False)
class EmbeddedFaces:
    """N embeddings and the index of their rows."""

    embeddings: Tensor
    """``[N, D]`` float, of any lengths; mapped, so that what is not asked for is never read."""
    index: FaceIndex

    def part(self, rows: Ints) -> Tensor:
        """Return these rows, ``[n, D]``: a view where they follow one another, else a copy."""
        if len(rows) and (np.diff(rows) == 1).all():
            return self.embeddings[int(rows[0]) : int(rows[-1]) + 1]
        return self.embeddings[torch.from_numpy(rows)]


def is_embedded(path: str | Path) -> bool:
    """Return whether the file is one of ``arcdist embed``: a .npy or .safetensors with its index beside it."""
    path = Path(path)
    return path.suffix in (".npy", ".safetensors") and path.with_suffix(".tsv").is_file()


def read_embedded(path: str | Path) -> EmbeddedFaces:
    """Return what ``arcdist embed`` wrote: NAME.npy or NAME.safetensors, and NAME.tsv.

    Raises DataError for a file that is missing or of another kind, and an index of another length.
    """
    path = Path(path)
    embeddings = _map(path)
    if embeddings.ndim != 2 or not embeddings.is_floating_point() or not len(embeddings):
        raise DataError(f"{path}: holds {embeddings.dtype} {list(embeddings.shape)}, not embeddings [N, D]")
    names, labels = _read_index(path.with_suffix(".tsv"))
    if len(names) != len(embeddings):
        raise DataError(f"{path}: {len(embeddings)} embeddings, but {path.with_suffix('.tsv')} names {len(names)}")
    return EmbeddedFaces(embeddings, FaceIndex(names, labels, str(path)))


def _map(path: Path) -> Tensor:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return file.get_tensor("embeddings")
        return torch.from_numpy(np.lib.format.open_memmap(path, mode="c"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: is no file of embeddings, as `arcdist embed` writes: {reason}") from None


def _read_index(path: Path) -> tuple[list[str], list[str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; it stands beside the embeddings") from None
    if lines[0] != _HEADER or lines[-1]:
        raise DataError(f"{path}: begins with {lines[0][:80]!r}; is it the index of `arcdist embed`, and whole?")
    names, labels = [], []
    for number, line in enumerate(lines[1:-1], 2):
        fields = line.split("\t")
        if len(fields) != 2:
            raise DataError(f"{path}:{number}: {line[:80]!r} is no name and label")
        names.append(fields[0])
        labels.append(fields[1])
    return names, labels
