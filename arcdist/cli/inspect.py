"""``arcdist inspect``: what a .rec or .bin holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.cleaning import CleaningConfig, clean
from arcdist.cli.compose import compose_config
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.report import write_json
from arcdist.prepare.augment_sheet import augment_sheet
from arcdist.prepare.contact_sheet import contact_sheet
from arcdist.prepare.inspect import inspect
from arcdist.runtime import collectives
from arcdist.runtime.world import open_world

USAGE = """arcdist inspect FILE.rec|FILE.bin [--verify] [--sheet PATH.png [--augment PRESET]] [--json PATH]
       arcdist inspect FILE.rec with=RUN [output=FOLDER]     what a trained model doubts of its labels"""
_FAULTS_SHOWN = 20


@dataclass
class FileArguments:
    """What ``arcdist inspect`` is told of a file."""

    file: str = field(default="", metadata={"help": "a .rec or a .bin"})
    verify: bool = field(default=False, metadata={"help": "read every record and decode every image"})
    sheet: str = field(default="", metadata={"help": "picture file for a sheet of the images"})
    augment: str = field(
        default="", metadata={"help": "of configs/augment: the sheet shows what it makes of a .rec's images"}
    )
    sheet_images: int = field(default=64, metadata={"help": "images on the sheet"})
    workers: int = field(default=4, metadata={"help": "threads that decode"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not self.file:
            raise ConfigError(f"no file is named; usage: {USAGE.splitlines()[0]}")
        if self.workers < 1 or self.sheet_images < 1:
            raise ConfigError("workers and sheet_images: must be at least 1")
        if self.augment and not (self.sheet and self.file.endswith(".rec")):
            raise ConfigError("augment: what it does is shown on a sheet of a .rec: --sheet PATH.png")
        if self.sheet and Path(self.sheet).suffix not in (".png", ".jpg"):
            raise ConfigError(f"sheet: {self.sheet!r}: must end in .png or .jpg")


@dataclass
class InspectArguments(CleaningConfig, FileArguments):
    """What ``arcdist inspect`` is told."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        FileArguments.validate(self)
        self.validate_cleaning(self.file)


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist inspect`` and return the exit code: 1 where faults were found."""
    if wants_help(arguments):
        print(help_page(USAGE, InspectArguments))
        return 0
    config = parse(InspectArguments, arguments, positions=("file",))
    config.validate()
    world = open_world(config.runtime) if config.with_ else None
    found = collectives.from_rank_0(lambda: _inspect(config))
    if world and not found.get("faults"):
        clean(config.file, config, world)
    return 1 if found.get("faults") else 0


def _inspect(config: InspectArguments) -> dict[str, Any]:
    found = inspect(config.file, config.verify, config.workers)
    for key, value in found.items():
        print(f"{key:<20} {_text(key, value)}")
    if config.json:
        write_json(config.json, found)
    if config.sheet:
        _write_sheet(config)
    return found


def _text(key: str, value: Any) -> str:
    if key == "faults":
        shown = [f"\n  {fault}" for fault in value[:_FAULTS_SHOWN]]
        more = f"\n  … and {len(value) - _FAULTS_SHOWN} more" if len(value) > _FAULTS_SHOWN else ""
        return f"{len(value)}{''.join(shown)}{more}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _write_sheet(config: InspectArguments) -> None:
    path = Path(config.sheet)
    if config.augment:
        preset = compose_config([f"augment={config.augment}"]).data.augment
        sheet = augment_sheet(config.file, preset, config.sheet_images)
    else:
        sheet = contact_sheet(config.file, config.sheet_images)
    encoded = cv2.imencode(path.suffix, sheet[:, :, ::-1])[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    print(f"{'sheet':<20} {path}")
