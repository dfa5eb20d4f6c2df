"""torch.distributed.checkpoint's files, read into a run's tensors without running what they name.

Its ``.metadata`` is a pickle, which torch loads as it is. Ours may name what such a file holds and nothing else.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from arcdist.checkpoint.folder import fault_of
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.runtime import collectives

_NAMED = {
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
}
_PATHS = {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}


def load(folder: Path, tensors: dict[str, Tensor], checked: bool = False) -> None:
    """Fill ``tensors`` in place from a checkpoint that any number of ranks may have written.

    Args:
        folder: of the checkpoint.
        tensors: as ``training_tensors`` names them.
        checked: its files' checksums have just been found right.

    Errors: CheckpointError when its keys or shapes are not those of ``tensors``, or a file is damaged.
    """
    marker = read_marker(folder)
    missing, extra = sorted(set(tensors) - set(marker["keys"])), sorted(set(marker["keys"]) - set(tensors))
    if missing or extra:
        raise CheckpointError(
            f"{folder}: not of this model and optimizer: {len(missing)} tensors are missing (first {missing[:3]}), "
            f"{len(extra)} are not of it (first {extra[:3]})"
        )
    fault = None if checked else collectives.from_rank_0(lambda: fault_of(folder, marker["files"]))
    if fault:
        raise CheckpointError(f"{folder}: {fault}")
    try:
        with warnings.catch_warnings():  # notes to its own developers
            warnings.simplefilter("ignore")
            dcp.load(dict(tensors), storage_reader=SafeReader(str(folder)), no_dist=not collectives.is_distributed())
    except (CheckpointException, OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[-1]}") from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name, whole, on the CPU of this process alone.

    Errors: CheckpointError where a file is damaged.
    """
    try:
        told = SafeReader(str(folder)).read_metadata().state_dict_metadata
    except (OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    tensors = {
        name: torch.empty(one.size, dtype=one.properties.dtype)
        for name, one in told.items()
        if isinstance(one, TensorStorageMetadata)
    }
    load(folder, tensors)
    return tensors


class SafeReader(FileSystemReader):
    """Reads a checkpoint's folder.

    Errors: pickle.UnpicklingError where ``.metadata`` names anything but tensors' shapes, dtypes and places.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return which tensor is where."""
        with (Path(self.path) / ".metadata").open("rb") as file:
            read = _Unpickler(file).load()
        if not isinstance(read, Metadata):
            raise pickle.UnpicklingError(f".metadata holds {type(read).__name__}, not the metadata of a checkpoint")
        if read.storage_meta is None:
            read.storage_meta = StorageMeta()
        read.storage_meta.load_id = self.load_id
        return read


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = (module, name) in _NAMED or (module in ("pathlib", "pathlib._local") and name in _PATHS)
        if module == metadata.__name__:
            known = isinstance(getattr(metadata, name.split(".")[0], None), type)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout):
            known = True
        if not known:
            raise pickle.UnpicklingError(f".metadata asks for {module}.{name}, which no checkpoint needs")
        return super().find_class(module, name)
