"""Checkpoints of insightface's arcface_torch, ``checkpoint_gpu_RANK.pt``, read into the tensors of a run here.

Each file has the whole backbone, and of centers and their momentum the rows of its rank. Whatever the number of ranks
was there, it may be another here.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.state import BACKBONE
from arcdist.errors import DataError
from arcdist.runtime import collectives
from arcdist.runtime.fully_sharded import is_sharded
from arcdist.runtime.sharding import shard_rows
from arcdist.runtime.torch_files import read_torch

_FILE = "checkpoint_gpu_{}.pt"
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_SHOWN = 3
_log = logging.getLogger("arcdist")


def is_arcface_torch(folder: Path) -> bool:
    """Return whether arcface_torch has saved a training in a folder (its ``save_all_states``)."""
    return (folder / _FILE.format(0)).is_file()


def load_arcface_torch(folder: Path, tensors: dict[str, Tensor]) -> int:
    """Fill ``tensors`` in place with backbone, centers and the optimizer's state; return the epochs that were done.

    Args:
        folder: its ``output``, seen by every rank.
        tensors: as ``training_tensors`` names them.

    Errors: CheckpointError where files are missing or of different epochs, and where keys or shapes are not those of
        ``tensors``: another backbone, optimizer or number of classes.
    Memory: of this process that of ``tensors``; files are mapped, and a rank reads the rows that it holds.
    """
    shards = _read_shards(folder)
    try:
        _check_ranks(folder, shards)
        found = _by_name(shards)
        epochs, rate = int(shards[0]["epoch"]), float(shards[0]["state_optimizer"]["param_groups"][0]["lr"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder}: its files are not laid out as arcface_torch's are ({error!r})") from None
    missing, extra = sorted(set(tensors) - set(found)), sorted(set(found) - set(tensors))
    if missing or extra:
        raise CheckpointError(
            f"{folder}: not of this backbone and optimizer: {len(missing)} tensors are missing (first "
            f"{missing[:_SHOWN]}), {len(extra)} are not of it (first {extra[:_SHOWN]}); backbone= and optim= must be "
            "those that it was trained with"
        )
    for name, tensor in tensors.items():
        shape = _shape(found[name])
        if shape != tensor.shape:
            what = "; one row a class: is it the same training set?" if name == "head.centers" else ""
            raise CheckpointError(f"{folder}: {name} is {list(shape)} there, and {list(tensor.shape)} here{what}")
    for name, tensor in tensors.items():
        if is_sharded(tensor):
            mesh = tensor.device_mesh
            mine = shard_rows(len(tensor), mesh.get_local_rank("within"), mesh.size(mesh.ndim - 1))
            _copy_rows(tensor.to_local(), found[name], mine)
        elif tensor.ndim:
            _copy_rows(tensor, found[name], range(len(tensor)))
        else:
            tensor.copy_(found[name][0])
    if collectives.rank() == 0:
        told = f"{epochs} epochs on {len(shards)} ranks, learning rate {rate:.4g}"
        _log.info("going on from a training of arcface_torch in %s: %s", folder, told)
    return epochs


def _read_shards(folder: Path) -> list[dict[str, Any]]:
    count = len(list(folder.glob(_FILE.format("*"))))
    try:
        shards = [read_torch(folder / _FILE.format(rank), mmap=True) for rank in range(count)]
    except DataError as error:
        raise CheckpointError(f"{error}; every rank's file is needed, and {count} are there") from None
    return shards


def _check_ranks(folder: Path, shards: Sequence[dict[str, Any]]) -> None:
    """Raise CheckpointError where the files are not those of all ranks at one time."""
    epochs = {shard["epoch"] for shard in shards}
    if len(epochs) > 1:
        raise CheckpointError(
            f"{folder}: its files are of different epochs {sorted(epochs)}; it was killed as it saved"
        )
    rows = [len(shard["state_dict_softmax_fc"]["weight"]) for shard in shards]
    if max(rows) - min(rows) > 1 or sorted(rows, reverse=True) != rows:  # C // W, and one more on the first C % W
        raise CheckpointError(
            f"{folder}: its files hold {rows} classes, which no number of ranks gives; is one missing?"
        )


def _by_name(shards: Sequence[dict[str, Any]]) -> dict[str, list[Tensor]]:
    """Return everything by the name that it has here, as parts that stand below each other."""
    weights = shards[0]["state_dict_backbone"]
    parameters = [key for key in weights if not key.endswith(_BUFFERS)]
    found = {f"{BACKBONE}{key}": [tensor] for key, tensor in weights.items()}
    found["head.centers"] = [shard["state_dict_softmax_fc"]["weight"] for shard in shards]
    # Its optimizer numbers the backbone's parameters, in the order that a state_dict has them in, and then the centers.
    states = [shard["state_optimizer"]["state"] for shard in shards]
    for number, parameter in enumerate(parameters):
        for key, value in _tensors(states[0].get(number, {})):
            found[f"optimizer.{BACKBONE}{parameter}.{key}"] = [value]
    for key, value in _tensors(states[0].get(len(parameters), {})):
        parts = [torch.as_tensor(state[len(parameters)][key]) for state in states] if value.ndim else [value]
        found[f"optimizer.head.centers.{key}"] = parts
    return found


def _tensors(state: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((key, torch.as_tensor(value)) for key, value in state.items() if value is not None)


def _shape(parts: Sequence[Tensor]) -> torch.Size:
    first = parts[0].shape
    return torch.Size((sum(map(len, parts)), *first[1:])) if first else first


def _copy_rows(into: Tensor, parts: Sequence[Tensor], rows: range) -> None:
    """Copy some rows of what the parts are together."""
    start = 0
    for part in parts:
        own = range(max(rows.start, start), min(rows.stop, start + len(part)))
        if own:
            into[own.start - rows.start : own.stop - rows.start].copy_(part[own.start - start : own.stop - start])
        start += len(part)
