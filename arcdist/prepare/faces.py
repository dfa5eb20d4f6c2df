"""The embeddings of a set: from a file, and block by block."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.data.datasets import RecordDataset
from arcdist.errors import DataError
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows


def read_embeddings(path: Path, dataset: RecordDataset) -> np.ndarray:
    """Return the embeddings of a set from a ``.npy`` of ``arcdist embed``, mapped: ``[N, D]``, a row an image.

    Errors: DataError for another kind of file, another number of images, or, where the ``.tsv`` is beside it, other
    records.
    """
    try:
        embeddings = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no array of embeddings: {error}") from None
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or len(embeddings) != len(dataset):
        found = f"{embeddings.dtype} {list(embeddings.shape)}"
        raise DataError(
            f"{path}: holds {found}, not a row of numbers for each of the {len(dataset)} images of {dataset.path}"
        )
    index = path.with_suffix(".tsv")
    if index.exists():
        try:
            lines = index.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{index}: cannot be read: {error}") from None
        names = [line.partition("\t")[0] for line in lines[1:]]
        if names != [str(key) for key in dataset.keys.tolist()]:
            raise DataError(f"{index}: names other records than {dataset.path} has; it is of another file")
    return embeddings


@dataclass(frozen=True, eq=False)
class Faces:
    """The embeddings of a set, of which each rank works on its part, block by block.

    Args:
        embeddings: ``[N, D]`` float32, of any lengths but 0; the same on every rank, so better a mapped file.
        device: where the products are made.
        block: rows, and centers, that are on the device at once.
        progress: called with the number of this rank's rows that were just looked at in a pass over them.
    """

    embeddings: np.ndarray
    device: torch.device
    block: int = 8192
    progress: Callable[[int], None] = lambda rows: None

    @property
    def rows(self) -> range:
        """This rank's rows."""
        return shard_rows(len(self.embeddings), collectives.rank(), collectives.world_size())

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield this rank's unit embeddings, ``[b, D]``, and which of its rows they are.

        Errors: DataError, on the rank that meets it, for an embedding that has no direction.
        """
        for start in range(0, len(self.rows), self.block):
            part = slice(start, min(start + self.block, len(self.rows)))
            rows = self.embeddings[self.rows.start + part.start : self.rows.start + part.stop]
            unit = F.normalize(torch.from_numpy(np.array(rows, np.float32)).to(self.device))
            broken = ~((unit * unit).sum(1) > 0.5)  # NaN too
            if broken.any():
                row = self.rows.start + part.start + int(broken.int().argmax())
                raise DataError(f"embedding {row} is zero or not finite, and so has no direction")
            yield part, unit
            self.progress(len(unit))
