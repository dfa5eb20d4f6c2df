"""``arcdist migrate CONFIG.py``: a configuration of arcface_torch as a command of arcdist."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcdist.cli.arcface_config import Drops, read_settings
from arcdist.cli.arcface_keys import IDLE, Meaning, first_overrides, meanings
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.compose import check_overrides
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json

USAGE = "arcdist migrate CONFIG.py [gpus=N] [--json PATH]"
_GPUS_OF_A_NODE = 8
_SECRET = "wandb_key"


@dataclass
class MigrateArguments:
    """What ``arcdist migrate`` is told."""

    config: str = field(default="", metadata={"help": "a file of arcface_torch's configs/; it is read, never executed"})
    gpus: int = field(default=8, metadata={"help": "on how many it was trained: its batch_size is one GPU's"})
    json: str = field(default="", metadata={"help": "file for the overrides, and for what became of each key"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not self.config:
            raise ConfigError(f"no file is named; usage: {USAGE}")
        if self.gpus < 1:
            raise ConfigError(f"gpus: {self.gpus}: must be at least 1")


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist migrate`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, MigrateArguments))
        return 0
    config = parse(MigrateArguments, arguments, positions=("config",))
    config.validate()
    path = Path(config.config)
    overrides, found = migrated(path, config.gpus)
    check_overrides([one for one in overrides if not one.startswith("log.trackers=")])  # may be of another machine
    command = [*_launcher(config.gpus), *overrides]
    print(" \\\n    ".join([" ".join(_launcher(config.gpus)), *map(shlex.quote, overrides)]))
    for line in _report(path, found):
        print(f"# {line}".replace("\n", " ").rstrip())
    if config.json:
        keys = [_as_dict(meaning) for meaning in found]
        write_json(config.json, {"file": str(path), "overrides": overrides, "command": command, "keys": keys})
    return 0


def migrated(path: Path, gpus: int) -> tuple[list[str], list[Meaning]]:
    """Return the overrides that train here what a file says, unchecked, and what became of each of its keys.

    Errors: DataError and ConfigError, as `read_settings` and `meanings` raise them.
    """
    settings = read_settings(path)
    found = meanings(path, settings, gpus)
    return [*first_overrides(path, settings), *(one for meaning in found for one in meaning.overrides)], found


def _launcher(gpus: int) -> list[str]:
    """Return the words that start a run on so many ranks."""
    if gpus == 1:
        return ["arcdist", "train"]
    nodes, rest = divmod(gpus, _GPUS_OF_A_NODE)
    if nodes < 2 or rest:
        return ["torchrun", f"--nproc_per_node={gpus}", "--module", "arcdist", "train"]
    ranks = [f"--nnodes={nodes}", f"--nproc_per_node={_GPUS_OF_A_NODE}"]
    meeting = ["--rdzv_backend=c10d", "--rdzv_endpoint=FIRST:29400", "--rdzv_id=arcdist"]
    return ["torchrun", *ranks, *meeting, "--module", "arcdist", "train"]


def _report(path: Path, found: Sequence[Meaning]) -> Iterator[str]:
    """Yield what became of each key: one that is taken, one without meaning, one that is not known."""
    kinds = {"taken": f"{path.name}, key by key", "idle": "without meaning here", "unknown": "not known: look after it"}
    for kind, title in kinds.items():
        of_it = [meaning for meaning in found if _kind(meaning) == kind]
        if not of_it:
            continue
        yield ""
        yield f"{title}:"
        for meaning in of_it:
            base = "" if meaning.setting.line else " (base.py's)"
            became = f" -> {' '.join(meaning.overrides)}" if meaning.overrides else ""
            remark = f"; {meaning.remark}" if meaning.remark else ""
            yield f"  {meaning.key} = {_shown(meaning)}{base}{became}{remark}"


def _kind(meaning: Meaning) -> str:
    if meaning.overrides:
        return "taken"
    return "idle" if meaning.remark or meaning.key in IDLE or not meaning.setting.line else "unknown"


def _shown(meaning: Meaning) -> str:
    return "…" if meaning.key == _SECRET else repr(_plain(meaning))


def _plain(meaning: Meaning) -> Any:
    value = meaning.setting.value
    return {"drops_at_epochs": value.epochs} if isinstance(value, Drops) else value


def _as_dict(meaning: Meaning) -> dict[str, Any]:
    value = None if meaning.key == _SECRET else _plain(meaning)
    told = {"key": meaning.key, "value": value, "line": meaning.setting.line or None, "state": _kind(meaning)}
    return told | {"overrides": meaning.overrides, "remark": meaning.remark}
