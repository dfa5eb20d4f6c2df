"""torch.distributed.checkpoint's files, read without running what they name.

Its ``.metadata`` is a pickle, which torch loads as it is. Ours may name what such a file holds and nothing else.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, metadata
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

_NAMED = {
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
}
_PATHS = {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}


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
