"""torch.distributed.checkpoint's files, read into a run's tensors without running what they name."""

import pickle
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from arcdist.checkpoint.folder import fault_of
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.checkpoint.metadata import read_tensor_metadata
from arcdist.runtime import collectives


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
        differ = {"are missing": missing, "are not of it": extra}
        told = [
            f"{len(names)} tensors {what} (such as {', '.join(names[:3])})" for what, names in differ.items() if names
        ]
        raise CheckpointError(
            f"{folder}: not of this model and optimizer: {'; '.join(told)}; put back what is another of "
            "backbone, optim, head, losses or train.ema, or start another run (name=…)"
        )
    fault = None if checked else collectives.from_rank_0(lambda: fault_of(folder, marker["files"]))
    if fault:
        raise CheckpointError(f"{folder}: {fault}")
    try:
        with warnings.catch_warnings():  # notes to its own developers
            warnings.simplefilter("ignore")
            reader = SafeReader(folder, marker["files"])
            reader.read_metadata()  # what is wrong there torch 2.11 would keep to itself
            dcp.load(dict(tensors), storage_reader=reader, no_dist=not collectives.is_distributed())
    except (CheckpointException, OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[-1]}") from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name, whole, on the CPU of this process alone.

    Errors: CheckpointError where a file is damaged.
    """
    try:
        told = SafeReader(folder, read_marker(folder)["files"]).read_metadata().state_dict_metadata
    except (OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    tensors = {
        name: torch.empty(one.size, dtype=one.properties.dtype)
        for name, one in told.items()
        if isinstance(one, TensorStorageMetadata)
    }
    load(folder, tensors)
    return tensors


def read_tensor(folder: Path, name: str) -> Tensor:
    """Return one tensor of a checkpoint, whole, on the CPU of this process alone.

    Args:
        folder: of the checkpoint, whose files have just been found right (``newest_checkpoint``).
        name: as ``training_tensors`` names it.

    Errors: CheckpointError where there is none of that name, or a file cannot be read.
    """
    try:
        reader = SafeReader(folder, read_marker(folder)["files"])
        told = reader.read_metadata().state_dict_metadata.get(name)
        if not isinstance(told, TensorStorageMetadata):
            raise CheckpointError(f"{folder}: holds no {name}")
        tensor = torch.empty(told.size, dtype=told.properties.dtype)
        with warnings.catch_warnings():  # notes to its own developers
            warnings.simplefilter("ignore")
            dcp.load({name: tensor}, storage_reader=reader, no_dist=True)
    except (CheckpointException, OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {str(error).strip().splitlines()[-1]}") from error
    return tensor


class SafeReader(FileSystemReader):
    """Reads a checkpoint's folder.

    Args:
        folder: of the checkpoint.
        files: the names of its files, as its marker lists them.

    Errors: pickle.UnpicklingError where ``.metadata`` speaks of anything but tensors in these files.
    """

    def __init__(self, folder: Path, files: Collection[str]) -> None:
        super().__init__(folder)
        self._files = files

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return which tensor is where."""
        read = read_tensor_metadata(Path(self.path) / ".metadata", self._files)
        assert read.storage_meta is not None
        read.storage_meta.load_id = self.load_id
        return read
