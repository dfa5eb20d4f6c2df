"""One save, beside training: all ranks write aside, rank 0 commits, and then it is there at once and whole."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        broken = next(filter(None, self._gather(_not_finite(self.tensors))), None)
        if broken:
            return f"{self.final}: {broken} holds numbers that are not finite, which nothing can go on from"
        first = self.group is None or dist.get_rank() == 0
        aside = folder.place_aside(self.final, self.nonce)
        if first:
            folder.remove_leftovers(self.final.parent, but=aside)
        fault, files = None, {}
        weights = self._whole_weights()
        try:
            files = self._write_files(aside, weights if first else None)
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

    def _whole_weights(self) -> dict[str, Tensor]:
        """Return on rank 0 the weights that the run is about, gathered from the ranks that hold their parts."""
        weights = published_weights(self.tensors)
        for name in sorted(name for name, tensor in weights.items() if is_sharded(tensor)):
            weights[name] = _on_rank_0(weights[name], self.group)
        return weights

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


def _on_rank_0(tensor: Tensor, group: ProcessGroup | None) -> Tensor:
    """Return on rank 0 all rows of a DTensor, of which the first ranks hold a part each; elsewhere this rank's part."""
    assert is_sharded(tensor)
    mine, parts, rank = tensor.to_local(), tensor.device_mesh.size(-1), collectives.rank()
    rows = [shard_rows(len(tensor), part, parts) for part in range(parts)]
    if 0 < rank < parts and rows[rank]:
        dist.send(mine.contiguous(), 0, group)
    if rank > 0:
        return mine
    whole = mine.new_empty(tensor.shape)
    whole[: len(mine)] = mine
    for part in range(1, parts):
        if rows[part]:
            dist.recv(whole[rows[part].start : rows[part].stop], part, group)
    return whole


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Return the name of the first tensor of this rank that holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        local = part_of(tensor)
        # The extremes carry NaN on, and need no second tensor of that size.
        if local.is_floating_point() and local.numel() and not all(edge.isfinite() for edge in local.aminmax()):
            return name
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
