"""``COMPLETE.json``: what a checkpoint says of itself, written last; a folder without it is no checkpoint."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from arcdist.checkpoint.schema import refuse_newer
from arcdist.errors import ArcdistError, DataError, NewerError

FORMAT = 2
MARKER = "COMPLETE.json"
_KEYS = {"step": int, "keys": list, "files": dict, "config": dict, "metrics": dict}
_DIGEST = "sha256"


class CheckpointError(ArcdistError):
    """A checkpoint that cannot be written or read, or that is not of this run."""

    on_every_rank = True


def write_marker(folder: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint's marker to the disk, with its own checksum in it.

    Args:
        folder: of the checkpoint.
        content: JSON-able; ``step``, ``keys`` (of its tensors), ``files``, ``config`` and ``metrics`` are needed.
    """
    content = {"format": FORMAT, **content}
    with (folder / MARKER).open("w") as file:
        file.write(json.dumps({**content, _DIGEST: _digest(content)}, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_marker(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself.

    Errors: CheckpointError where there is no marker, a damaged one, or one of an older format; NewerError for one of a
        newer format, or with a configuration of a newer schema.
    """
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}: no whole checkpoint: {MARKER} cannot be read ({error})") from error
    if not isinstance(marker, dict):
        raise CheckpointError(f"{folder}: no whole checkpoint: {MARKER} holds no object")
    found = marker.get("format")
    if found != FORMAT:
        fault = f"{folder}: {MARKER} is of format {found}, but this arcdist reads format {FORMAT}"
        raise NewerError(fault) if isinstance(found, int) and found > FORMAT else CheckpointError(fault)
    if marker.pop(_DIGEST, None) != _digest(marker):
        raise CheckpointError(f"{folder}: {MARKER} was changed: its checksum is another")
    wrong = [key for key, kind in _KEYS.items() if not isinstance(marker.get(key), kind)]
    if not wrong and not all(isinstance(key, str) for key in marker["keys"]):
        wrong = ["keys"]
    if wrong:
        raise CheckpointError(f"{folder}: {MARKER} lacks {', '.join(wrong)}")
    try:
        refuse_newer(marker["config"], folder)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    return marker


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
