"""One save, beside training: all ranks write aside, rank 0 commits, and then it is there at once and whole."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException

from arcdist.checkpoint import folder, retention
from arcdist.checkpoint.marker import write_marker
from arcdist.checkpoint.state import published_weights
from arcdist.checkpoint.writer import CheckedWriter
from arcdist.runtime import collectives
from arcdist.runtime.fully_sharded import is_sharded, part_of
from arcdist.runtime.sharding import shard_rows

_log = logging.getLogger("arcdist")


@dataclass(frozen=True)
class Save:
    """A checkpoint that is to be written.

    Args:
        final: where it will be.
        nonce: that no other attempt has; the same on every rank.
        tensors: this rank's part, on the CPU; they stay as they are until it is written.
        marker: what it says of itself, without its files.
        group: of gloo, for nobody else; None for a world of one.
        keep: see ``retention.too_many``.
        keep_every: likewise.
        metric: likewise.
    """

    final: Path
    nonce: str
    tensors: dict[str, Tensor]
    marker: dict[str, Any]
    group: ProcessGroup | None
    keep: int
    keep_every: int
    metric: str

    def write(self) -> str | None:
        """Write it, on every rank; return None, or on every rank why there is none.

        Errors: RuntimeError when the ranks lose each other.
        """
        first = self.group is None or dist.get_rank() == 0
        published = published_weights(self.tensors)
        fault, room = self._make_room(published, first)
        if fault := next(filter(None, self._gather(fault or _not_finite(self.tensors))), None):
            return f"{self.final}: {fault}"
        for name, tensor in room.items():
            _gather_rows(tensor, published[name], self.group)
        aside = folder.place_aside(self.final, self.nonce)
        if first:
            folder.remove_leftovers(self.final.parent, but=aside)
        fault, files = None, {}
        try:
            files = self._write_files(aside, published | room if first else None)
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            fault = _reason(error)
        parts = self._gather((fault, files))
        fault = next((fault for fault, _ in parts if fault), None)
        if first:
            try:
                if fault is None:
                    self._commit(aside, {name: told for _, part in parts for name, told in part.items()})
            except Exception as error:
                fault = _reason(error)
            if fault:
                shutil.rmtree(aside, ignore_errors=True)
                fault = (
                    f"{self.final}: cannot be written ({fault}); {_free_mb(self.final.parent):,.0f} MB are free there"
                )
        fault = self._gather(fault)[0]
        if first and not fault:
            marked = dict(folder.marked_checkpoints(self.final.parent))
            folder.remove(retention.too_many(marked, self.final, self.keep, self.keep_every, self.metric))
        return fault

    def _write_files(self, aside: Path, weights: dict[str, Tensor] | None) -> dict[str, dict[str, Any]]:
        writer = CheckedWriter(aside)
        writer.write(self.tensors, self.group)
        if weights is not None:
            metadata = {key: str(value) for key, value in self.marker.items() if isinstance(value, str | int | float)}
            writer.write_weights(weights, metadata)
        return writer.check()

    def _make_room(self, published: dict[str, Tensor], first: bool) -> tuple[str | None, dict[str, Tensor]]:
        """Return why there is none; and, on rank 0, room for each of the weights that ranks share out."""
        shared = {name: tensor for name, tensor in sorted(published.items()) if is_sharded(tensor)}
        try:
            shapes = {name: tensor.shape if first else (0,) for name, tensor in shared.items()}
            return None, {name: torch.empty(shapes[name], dtype=tensor.dtype) for name, tensor in shared.items()}
        except (RuntimeError, MemoryError) as error:
            return f"cannot be gathered ({str(error).strip().splitlines()[0]})", {}

    def _commit(self, aside: Path, files: dict[str, dict[str, Any]]) -> None:
        write_marker(aside, {**self.marker, "files": files})
        folder.flush(aside)
        folder.move_to(aside, self.final)

    def _gather(self, value: Any) -> list[Any]:
        if self.group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self.group)
        return values


def _gather_rows(into: Tensor, tensor: Tensor, group: ProcessGroup | None) -> None:
    """Copy on rank 0 all rows of a DTensor, of which the first ranks hold a part each."""
    assert is_sharded(tensor)
    mine, parts, rank = tensor.to_local(), tensor.device_mesh.size(-1), collectives.rank()
    rows = [shard_rows(len(tensor), part, parts) for part in range(parts)]
    if rank == 0:
        into[: len(mine)] = mine
        for part in range(1, parts):
            if rows[part]:
                dist.recv(into[rows[part].start : rows[part].stop], part, group)
    elif rank < parts and rows[rank]:
        dist.send(mine.contiguous(), 0, group)


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Return which tensor of this rank holds a NaN or an infinity, the first one."""
    for name, tensor in tensors.items():
        local = part_of(tensor)
        # The extremes carry NaN on, and need no second tensor of that size.
        if local.is_floating_point() and local.numel() and not all(edge.isfinite() for edge in local.aminmax()):
            return f"{name} holds numbers that are not finite, which nothing can go on from"
    return None


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0


def _reason(error: BaseException) -> str:
    """Return why this rank cannot write: whatever it is, the others wait to hear of it, unless they are lost."""
    if collectives.is_peer_failure(error):
        raise error
    if not isinstance(error, OSError | CheckpointException | SafetensorError):
        _log.exception("writing a checkpoint has met what it does not know")
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
