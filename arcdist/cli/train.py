"""``arcdist train``: compose the configuration, check it before any process group starts, then do the run."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from arcdist.cli.arguments import wants_help
from arcdist.cli.compose import check_overrides, config_folder, groups, typed
from arcdist.cli.keys import help_lines
from arcdist.cli.main import tell
from arcdist.errors import ConfigError
from arcdist.runtime.log import keep_failure, set_up_log
from arcdist.runtime.world import open_world, rank_from_environment
from arcdist.train.config import TrainConfig
from arcdist.train.trainer import train

_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i")  # of Hydra
_FOLDER_FLAGS = ("--config-dir", "-cd")  # of Hydra

_FLAGS_OF_FILES = ("--config-name", "-cn", "--config-path", "-cp")  # of Hydra: what no key of ours was checked against


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist train`` and return the exit code."""
    if wants_help(arguments):
        print(help_text())
        return 0
    arguments = _folder_as_key(_json_as_key(arguments))
    check_overrides(_overrides(arguments))
    sys.argv = ["arcdist train", *arguments]
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(_run)()
    return 0


def _json_as_key(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--json PATH`` as the key that it is short for."""
    rest = list(arguments)
    if "--json" in rest:
        place = rest.index("--json")
        if place + 1 == len(rest):
            raise ConfigError("--json: needs a path")
        rest[place : place + 2] = [f"json={rest[place + 1]}"]
    return rest


def _folder_as_key(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--config-dir DIR`` as the key that it is short for."""
    rest = [part for one in arguments for part in (one.split("=", 1) if one.startswith("--config-dir=") else [one])]
    for flag in _FOLDER_FLAGS:
        if flag in rest:
            place = rest.index(flag)
            folder = Path(*rest[place + 1 : place + 2]).resolve()
            if place + 1 == len(rest) or not folder.is_dir():
                raise ConfigError(
                    f"{' '.join(rest[place : place + 2])}: needs a folder, of recipe/NAME.yaml and the like"
                )
            rest[place : place + 2] = [f"hydra.searchpath=['file://{folder}']"]
    return rest


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are neither Hydra's flags nor what those are set to."""
    overrides = []
    for before, argument in zip(["", *arguments], arguments):
        if argument.startswith(_FLAGS_OF_FILES):
            raise ConfigError(f"{argument}: a run is composed over arcdist's own train.yaml; choose by recipe=NAME")
        if argument.startswith("-") or before in _FLAGS_WITH_VALUE:
            continue
        if "=" not in argument and not argument.startswith("~"):
            raise ConfigError(f"{argument!r}: is not key=value")
        overrides.append(argument)
    return overrides


def _run(composed: DictConfig) -> None:
    """Do the run that Hydra composed; each job of a sweep gets a folder of its own."""
    config = typed(composed)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        config.folder = str(Path(config.folder) / _job_folder())
    try:
        config.validate()
        config.train.micro_batch(int(os.environ.get("WORLD_SIZE", "1")))
        set_up_log(rank_from_environment(), Path(config.as_dict()["folder"]) / "logs")
        train(config, open_world(config.runtime))
    except Exception as error:
        keep_failure(error)
        code = tell("train", error)
        if code is None:
            raise
        sys.exit(code)  # Hydra would print its own traceback


def _job_folder() -> str:
    """Return a folder's name that says what is particular to this job of a sweep."""
    # What stands in the job as it was typed is the same in every job.
    own = [override for override in HydraConfig.get().overrides.task if override not in sys.argv]
    name = re.sub(r"[^\w.=+-]+", "-", ",".join(own))
    return f"{HydraConfig.get().job.num}-{name[:100]}"


def help_text() -> str:
    """Return the page that ``arcdist train --help`` prints."""
    return "\n".join(
        [
            "usage: arcdist train [GROUP=CHOICE …] [key=value …] [--cfg job] [-m]",
            "       torchrun --nproc_per_node=N launch/train.py …       the same on N ranks",
            "",
            "  --cfg job   print the configuration that results, and do nothing",
            "  -m          run once for each of several values: -m margin.m2=0.3,0.5",
            "  --config-dir DIR   recipes of your own: DIR/recipe/mine.yaml is recipe=mine",
            "",
            "groups",
            *(f"  {name}={'|'.join(options)}" for name, options in groups().items()),
            "",
            "keys",
            *help_lines(TrainConfig),
        ]
    )
