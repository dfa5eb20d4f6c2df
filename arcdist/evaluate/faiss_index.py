"""Approximate search of a gallery that is asked again and again: a graph by faiss, kept in a file.

Exact search needs no faiss: ``identification.search`` is as fast as its exact index for one query and several times
faster for many.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.scores import unit_rows

_NEIGHBORS = 32  # of a row in the graph; faiss's own choice
_CONSTRUCTION, _SEARCH = 80, 128  # candidates looked at: more find more and take longer
_ROWS_AT_ONCE = 65536


class FaissIndex:
    """The unit rows of a gallery in an HNSW graph (Malkov and Yashunin, arXiv:1603.09320), by inner product.

    Args:
        gallery: ``[G, D]``, rows of any length; may be memory-mapped.
        path: of the index; it is read where it is there, else it is built and written.

    Raises:
        ConfigError: faiss is not installed.
        DataError: the file is of another gallery, or cannot be read or written; rows without a direction.

    Cost: to build, minutes a million rows; to open, seconds a million, for a look at each; the file and memory, the
    gallery in float32 and 260 bytes a row.
    """

    def __init__(self, gallery: Tensor, path: str | Path) -> None:
        faiss, self._path = _faiss(), Path(path)
        aside = Path(f"{self._path}.{os.getpid()}.partial")
        try:
            if self._path.exists():
                self._index = faiss.read_index(str(self._path))
                self._check(gallery)
            else:
                self._index = self._build(faiss, gallery)
                faiss.write_index(self._index, str(aside))
                aside.replace(self._path)
        except (RuntimeError, OSError) as error:
            aside.unlink(missing_ok=True)
            raise DataError(f"{path}: no index of faiss, or it cannot be written: {str(error)[:200]}") from None

    def search(self, probes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return each probe's about nearest rows, ``[P, count]``: cosines, falling, and row numbers."""
        found = self._index.search(unit_rows(probes, "probes").float().numpy(), count)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def _build(self, faiss: Any, gallery: Tensor) -> Any:
        index = faiss.IndexHNSWFlat(gallery.shape[1], _NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _CONSTRUCTION, _SEARCH
        for start in range(0, len(gallery), _ROWS_AT_ONCE):
            index.add(unit_rows(gallery[start : start + _ROWS_AT_ONCE], "gallery", start).float().numpy())
        return index

    def _check(self, gallery: Tensor) -> None:
        index = self._index
        is_this = (index.ntotal, index.d) == tuple(gallery.shape)
        for start in range(0, len(gallery) if is_this else 0, _ROWS_AT_ONCE):
            rows = unit_rows(gallery[start : start + _ROWS_AT_ONCE], "gallery", start).float()
            held = torch.from_numpy(index.reconstruct_n(start, len(rows)))
            is_this &= bool((held - rows).abs_().amax() < 1e-5)
        if not is_this:
            raise DataError(f"{self._path}: is of another gallery; remove it, and it is built again")


def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        raise ConfigError("index: needs faiss, which is not installed: pip install 'arcdist[search]'")
    import faiss

    return faiss
