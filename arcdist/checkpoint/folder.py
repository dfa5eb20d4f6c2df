"""A run's folder of checkpoints: their names, which of them are whole, and how one is taken away.

``step-000012000`` is a checkpoint if its marker is there; ``.writing-…`` is being written, ``.trash-…`` is being
removed, and what a process that died has left of either never counts.
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from arcdist.checkpoint.marker import MARKER, CheckpointError, read_marker

WEIGHTS = "model.safetensors"
_WRITING, _TRASH = ".writing-", ".trash-"
_log = logging.getLogger("arcdist")


def place_of(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"step-{step:09d}"


def place_aside(final: Path, nonce: str) -> Path:
    """Return where a checkpoint is written before it is whole; no other attempt writes there."""
    return final.with_name(f"{_WRITING}{final.name}-{nonce}")


def marked_checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the checkpoints that carry a sound marker, oldest first; others are named in the log."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{1,18}", path.name) and path.is_dir()]
    for path in sorted(found, key=lambda path: int(path.name[5:])):
        try:
            marker = read_marker(path)
            if marker["step"] != int(path.name[5:]):
                raise CheckpointError(f"{path}: its marker is of step {marker['step']}")
        except CheckpointError as error:
            _log.warning("checkpoint is passed over: %s", error)
        else:
            yield path, marker


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None; a damaged one is named in the log and passed over.

    Cost: reads every byte of the checkpoint that it answers.
    """
    for path, marker in reversed(list(marked_checkpoints(folder))):
        fault = fault_of(path, marker["files"])
        if fault is None:
            return path
        _log.warning("checkpoint %s is passed over: %s", path, fault)
    return None


def fault_of(folder: Path, files: Mapping[str, Any]) -> str | None:
    """Return what is wrong with some files of a checkpoint, None where they are as they were written.

    Args:
        folder: of the checkpoint.
        files: what its marker says of them.
    """
    for name, told in files.items():
        path = folder / name
        try:
            if Path(name).name != name or path.is_symlink():
                return f"{name!r} is no file of its own"
            size = path.stat().st_size
            if size != told["bytes"]:
                return f"{name} has {size:,} bytes, not {told['bytes']:,}"
            if sha256_of(path) != told["sha256"]:
                return f"{name} was changed: its checksum is another"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        except (KeyError, TypeError):
            return f"{MARKER} does not say how large {name} is"
    return None


def sha256_of(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Make what a file holds, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_to(aside: Path, final: Path) -> None:
    """Give what was written aside its name, durably; what has had that name is taken away once it is replaced."""
    replaced = _set_aside(final) if final.exists() else None
    aside.rename(final)
    flush(final.parent)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def keep_weights(checkpoint: Path, to: Path) -> None:
    """Leave a copy of a checkpoint's backbone elsewhere; a reader sees the old file or the whole new one.

    Errors: CheckpointError where it cannot be written; then no part of it is left.
    """
    aside = to.with_name(f"{to.name}.partial")
    try:
        shutil.copyfile(checkpoint / WEIGHTS, aside)
        flush(aside)
        aside.replace(to)
        flush(to.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise CheckpointError(
            f"{to}: cannot be written: {error.strerror}; the weights are in {checkpoint}, and the same command "
            "copies them once there is room"
        ) from error


def remove(checkpoints: Iterable[Path]) -> None:
    """Take checkpoints away: under no circumstance is a half removed one taken for a whole one."""
    for path in checkpoints:
        try:
            shutil.rmtree(_set_aside(path))
        except OSError as error:
            _log.warning("%s: cannot be removed: %s", path, error.strerror)


def _set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint to what never counts, and return that."""
    return checkpoint.rename(checkpoint.with_name(f"{_TRASH}{checkpoint.name}-{secrets.token_hex(4)}"))


def remove_leftovers(folder: Path, but: Path | None = None) -> None:
    """Remove what processes that died were writing or removing; only who holds the run's lock may."""
    for path in sorted([*folder.glob(f"{_WRITING}*"), *folder.glob(f"{_TRASH}*")]):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)
