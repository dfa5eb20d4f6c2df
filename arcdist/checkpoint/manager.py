"""Where a run's checkpoints are, and which is the newest whole one.

A checkpoint is a folder ``step-000012000`` with torch.distributed.checkpoint's files, ``model.safetensors`` (the
backbone alone, for others to read) and, last, ``COMPLETE.json``: format, step, file sizes and checksums. It is
written under another name and renamed when it is whole, so a folder of that name without its marker never counts.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from arcdist.checkpoint.reader import SafeReader
from arcdist.errors import ArcdistError, ConfigError
from arcdist.runtime import collectives

FORMAT = 1
MARKER = "COMPLETE.json"
WEIGHTS = "model.safetensors"
_log = logging.getLogger("arcdist")


class CheckpointError(ArcdistError):
    """A checkpoint that cannot be written or read, or that is not of this run."""

    on_every_rank = True


@dataclass
class CheckpointConfig:
    """When a run is saved."""

    every: int = field(default=1000, metadata={"help": "steps between two checkpoints; 0 saves at the end only"})
    keep: int = field(default=2, metadata={"help": "newest checkpoints that stay on disk, at least 2"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.every < 0:
            raise ConfigError(f"checkpoint.every: {self.every}: must be 0 (at the end only) or more")
        if self.keep < 2:
            raise ConfigError(f"checkpoint.keep: {self.keep}: must be at least 2; one alone may be the damaged one")


class CheckpointManager:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder, self.config = folder, config

    def save(self, step: int, tensors: dict[str, Tensor], weights: dict[str, Tensor], about: dict[str, Any]) -> Path:
        """Write a checkpoint, on every rank, and return its folder; one of the same step is replaced.

        Args:
            step: optimizer steps done.
            tensors: what the run goes on from, DTensors where they are sharded.
            weights: the backbone alone, for ``model.safetensors``.
            about: JSON-able, kept in the marker; its ``config`` is compared on resuming.

        Errors: CheckpointError when it cannot be written; the ones before it stay.
        """
        final = self.folder / f"step-{step:09d}"
        aside = self.folder / f".writing-step-{step:09d}"
        if collectives.rank() == 0:
            shutil.rmtree(aside, ignore_errors=True)
        collectives.barrier()
        problem = None
        try:
            with _quiet():
                dcp.save(dict(tensors), checkpoint_id=str(aside), no_dist=not collectives.is_distributed())
            if collectives.rank() == 0:
                metadata = {key: str(value) for key, value in about.items() if not isinstance(value, dict)}
                save_file({name: tensor.contiguous() for name, tensor in weights.items()}, aside / WEIGHTS, metadata)
                self._commit(aside, final, {"format": FORMAT, "step": step, "keys": sorted(tensors), **about})
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            problem = self._why_not(final, error)
            shutil.rmtree(aside, ignore_errors=True)
        problem = next((text for text in collectives.gather_objects(problem) if text), None)
        if problem:
            raise CheckpointError(problem)
        return final

    def _why_not(self, final: Path, error: BaseException) -> str:
        reason = str(error).strip().splitlines()[-1]
        free_mb = shutil.disk_usage(self.folder).free / 1e6 if self.folder.exists() else 0
        return f"{final}: cannot be written ({reason}); {free_mb:,.0f} MB are free there"

    def _commit(self, aside: Path, final: Path, marker: dict[str, Any]) -> None:
        """Make the folder durable, mark it, give it its name, and drop the checkpoints that are too many."""
        files = sorted(aside.iterdir())
        marker["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
        (aside / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
        for path in [*files, aside / MARKER, aside]:
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        _flush(self.folder)
        # What is newer comes from before this run went back to an older checkpoint: it is not of this history.
        whole = [path for path, _ in _marked(self.folder)]
        older = [path for path in whole if path.name <= final.name]
        for path in [*older[: -self.config.keep], *(path for path in whole if path.name > final.name)]:
            shutil.rmtree(path, ignore_errors=True)

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint, the same on every rank, or None."""
        return collectives.from_rank_0(lambda: newest_checkpoint(self.folder))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None; a damaged one is named in the log and passed over.

    Cost: reads every byte of the checkpoint that it answers.
    """
    for path, marker in reversed(list(_marked(folder))):
        fault = _fault(path, marker)
        if fault is None:
            return path
        _log.warning("checkpoint %s is passed over: %s", path, fault)
    return None


def read_marker(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself.

    Errors: CheckpointError where there is no marker, or one of a newer format.
    """
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: no whole checkpoint: {MARKER} cannot be read ({error})") from error
    if not isinstance(marker, dict) or not isinstance(marker.get("files"), dict):
        raise CheckpointError(f"{folder}: no whole checkpoint: {MARKER} does not list its files")
    if marker.get("format") != FORMAT:
        raise CheckpointError(f"{folder}: format {marker.get('format')}, but this arcdist reads format {FORMAT}")
    missing = [key for key in ("step", "keys", "config") if key not in marker]
    if missing:
        raise CheckpointError(f"{folder}: {MARKER} lacks {', '.join(missing)}")
    return marker


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
    fault = None if checked else collectives.from_rank_0(lambda: _fault(folder, marker))
    if fault:
        raise CheckpointError(f"{folder}: {fault}")
    try:
        with _quiet():
            reader = SafeReader(str(folder))
            dcp.load(dict(tensors), storage_reader=reader, no_dist=not collectives.is_distributed())
    except (CheckpointException, OSError, ValueError, RuntimeError, UnpicklingError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[-1]}") from error


def _marked(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the checkpoints that carry a readable marker, oldest first."""
    for path in sorted(folder.glob("step-*")):
        if re.fullmatch(r"step-\d+", path.name) and (path / MARKER).is_file():
            try:
                marker = read_marker(path)
            except CheckpointError as error:
                _log.warning("checkpoint is passed over: %s", error)
            else:
                yield path, marker


def _fault(folder: Path, marker: dict[str, Any]) -> str | None:
    """Return what is wrong with a checkpoint's files, None where they are as they were written."""
    for name, told in marker.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != told["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {told['bytes']}"
        if _sha256(path) != told["sha256"]:
            return f"{name} was changed: its checksum is another"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hide torch.distributed.checkpoint's notes to its own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
