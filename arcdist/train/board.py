"""Pictures that are drawn after a run, on the run's TensorBoard."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from arcdist.data.decode import decode
from arcdist.errors import DataError


def show_pictures(run: str | Path, pictures: Sequence[Path], step: int) -> None:
    """Add PNGs to a run's TensorBoard, under the names of their files.

    Raises DataError where it cannot be written.
    """
    folder = Path(run, "tensorboard")
    try:
        with SummaryWriter(str(folder)) as board:
            for picture in pictures:
                board.add_image(picture.stem, decode(picture.read_bytes(), picture.name), step, dataformats="HWC")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from None


def last_step(run: str | Path) -> int:
    """Return the last step that a run has recorded; 0 where it has recorded none."""
    last = 0
    with contextlib.suppress(OSError):
        for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a line that was cut by the end of a process
                last = max(last, json.loads(line)["step"])
    return last
