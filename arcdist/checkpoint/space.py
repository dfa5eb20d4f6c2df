"""Whether checkpoints can be written into a folder, looked at before the first step."""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from arcdist.checkpoint.folder import flush
from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.state import published_weights

_log = logging.getLogger("arcdist")


def checkpoint_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return about how large a checkpoint will be, over all ranks, with the backbone's own file."""
    everything = [*tensors.values(), *published_weights(tensors).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in everything)


def look_at(folder: Path, size: int, keep: int) -> None:
    """Look whether a folder takes files and has room for them; warn where it has room for too few.

    Args:
        folder: of the checkpoints; is made where it is not there.
        size: bytes of one.
        keep: how many stay; one more is being written.

    Errors: CheckpointError where nothing can be written, or no checkpoint fits.
    """
    probe = folder / f".writing-probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir(parents=True)
        with (probe / "file").open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        (probe / "file").rename(probe / "renamed")
        flush(probe)
    except OSError as error:
        raise CheckpointError(f"{folder}: no checkpoint can be written there: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(probe)
    free = shutil.disk_usage(folder).free
    there = sum(path.stat().st_size for path in folder.glob("step-*/*") if path.is_file())
    what = f"{folder}: a checkpoint is about {size / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free"
    if size > free and not there:
        raise CheckpointError(f"{what}; free some, or choose another folder=")
    if (keep + 1) * size > free + there:
        _log.warning("%s, but up to %d are there at a time; a save that finds no room is left out", what, keep + 1)
