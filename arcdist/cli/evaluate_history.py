"""``arcdist evaluate RUN analysis=history``: the angle to the own center over the steps of a run."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.picture_files import RunPictureArguments
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.report import write_json
from arcdist.train.board import show_pictures
from arcdist.train.own_angles import QUANTILES, quantile_key

USAGE = "arcdist evaluate RUN analysis=history pictures=FOLDER [--json PATH]"


@dataclass
class HistoryArguments(RunPictureArguments):
    """What ``analysis=history`` is told."""

    model: str = field(default="", metadata={"help": "a run's folder"})
    analysis: str = field(default="history", metadata={"help": "history"})
    json: str = field(default="", metadata={"help": "file for the numbers"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not self.model or not self.pictures:
            raise ConfigError(f"a run's folder and pictures=FOLDER are needed; usage: {USAGE}")
        super().validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist evaluate analysis=history`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, HistoryArguments))
        return 0
    config = parse(HistoryArguments, arguments, positions=("model",))
    config.validate()
    records = _records(Path(config.model, "metrics.jsonl"))
    steps = [record["step"] for record in records]
    theta = {share: [record[quantile_key(share)] for record in records] for share in QUANTILES}
    from arcdist.evaluate.plots_history import angle_history  # matplotlib takes a second to import

    picture = config.picture("theta")
    try:
        angle_history(picture, steps, theta)
    except OSError as error:
        raise DataError(f"{picture}: cannot be written: {error.strerror}") from None
    print(picture)
    if config.tensorboard:
        show_pictures(config.model, [picture], steps[-1])
    if config.json:
        write_json(config.json, {"step": steps} | {quantile_key(share): values for share, values in theta.items()})
    return 0


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the records that tell of angles."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # a line that was cut by the end of a process
            record = json.loads(line)
            if all(quantile_key(share) in record for share in QUANTILES):
                found.append(record)
    if not found:
        raise DataError(f"{path}: tells of no angles; a softmax without cosines has none")
    return found
