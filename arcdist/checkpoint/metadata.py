"""``.metadata`` of torch.distributed.checkpoint, read without running what it names.

It is a pickle, which torch loads as it is, and then does as it says: bytes that it calls an object are unpickled, and
files that it names are opened wherever they are. Here it may speak of tensors in files of its own folder, and of
nothing else.
"""

import pickle
from collections.abc import Callable, Collection
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

_CLASSES = ("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex")
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_LAYOUTS = {str(value): value for value in vars(torch).values() if isinstance(value, torch.layout)}


def read_tensor_metadata(file: Path, files: Collection[str]) -> Metadata:
    """Return which tensor is where.

    Args:
        file: ``.metadata``.
        files: the names that a checkpoint's files may have, as its marker lists them.

    Errors: OSError where it cannot be read; pickle.UnpicklingError where it holds anything else.
    """
    try:
        return _read(file, files)
    except (OSError, pickle.UnpicklingError):
        raise
    except Exception as error:  # damage raises errors of a dozen classes
        raise pickle.UnpicklingError(f".metadata is damaged: {type(error).__name__}: {error}") from error


def _read(file: Path, files: Collection[str]) -> Metadata:
    with file.open("rb") as stream:
        read = _Unpickler(stream).load()
    if type(read) is not Metadata or not isinstance(read.state_dict_metadata, dict):
        raise pickle.UnpicklingError(f".metadata holds {type(read).__name__}, not the metadata of a checkpoint")
    for name, told in read.state_dict_metadata.items():
        if type(told) is not TensorStorageMetadata:
            raise pickle.UnpicklingError(f".metadata says that {name!r} is {type(told).__name__}, not of a tensor")
        if sum(prod(chunk.sizes) for chunk in told.chunks) != prod(told.size):
            raise pickle.UnpicklingError(f".metadata lists parts of {name!r} that are not the whole of it")
    for index, place in read.storage_data.items():
        if type(index) is not MetadataIndex or type(place) is not filesystem._StorageInfo:
            raise pickle.UnpicklingError(f".metadata holds {type(place).__name__} as the place of a tensor")
        if place.relative_path not in files:
            raise pickle.UnpicklingError(f".metadata names {place.relative_path!r}, which is no file of its checkpoint")
        place.transform_descriptors = None
    return Metadata(read.state_dict_metadata, storage_data=read.storage_data, storage_meta=metadata.StorageMeta())


def _build(unpickler: Any) -> None:
    """Set the attributes of an object, as a pickle says, but not those of a class or a function."""
    if callable(unpickler.stack[-2]):
        raise pickle.UnpicklingError(".metadata would change a class")
    pickle._Unpickler.dispatch[pickle.BUILD[0]](unpickler)


class _Unpickler(pickle._Unpickler):
    """Knows these names and no other; in Python, since the one in C allocates a memo as long as a file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for, or refuse it."""
        if module == metadata.__name__ and name in (*_CLASSES, "StorageMeta", "_MEM_FORMAT_ENCODING"):
            return getattr(metadata, name)
        if module in ("pathlib", "pathlib._local") and name in ("Path", "PosixPath", "WindowsPath"):
            return PurePosixPath  # where it was written; nobody goes there
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        try:
            return _NAMED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f".metadata asks for {module}.{name}, which no checkpoint needs") from None

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}


_NAMED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _LAYOUTS.__getitem__,
    (filesystem.__name__, "_StorageInfo"): filesystem._StorageInfo,
}
