"""What a tracker is told of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Start:
    """What a tracker begins with.

    Attributes:
        folder: of the run.
        project: what the run is filed under.
        name: of the run.
        config: the run's configuration by its keys, as ``optim.lr``.
        run_id: the tracker's own name of the run, if it has been there before; else empty.
    """

    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    run_id: str = ""


class Tracker(Protocol):
    """A run in another program's care. Its methods may raise anything: a run does not fail by them.

    Attributes:
        run_id: what the tracker calls the run, which goes on under it when it is resumed.
    """

    run_id: str

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite values of a step, under TensorBoard's names."""
        ...

    def show_picture(self, name: str, path: Path, step: int) -> None:
        """Take a PNG."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Take what the finished run has reached, as ``summary.json`` has it."""
        ...

    def close(self, finished: bool) -> None:
        """Leave; a run that is not finished may come again."""
        ...
