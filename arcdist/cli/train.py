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
from arcdist.runtime.log import set_up_log
from arcdist.runtime.world import open_world
from arcdist.train.config import TrainConfig
from arcdist.train.trainer import train


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist train`` and return the exit code."""
    if wants_help(arguments):
        print(help_text())
        return 0
    check_overrides([text for text in arguments if not text.startswith("-") and ("=" in text or text.startswith("~"))])
    sys.argv = ["arcdist train", *arguments]
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(_run)()
    return 0


def _run(composed: DictConfig) -> None:
    """Do the run that Hydra composed; each job of a sweep gets a folder of its own."""
    config = typed(composed)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        config.folder = str(Path(config.folder) / re.sub(r"[^\w.=,-]", "-", HydraConfig.get().job.override_dirname))
    try:
        config.validate()
        set_up_log(int(os.environ.get("RANK", "0")))
        with open_world(config.runtime) as world:
            train(config, world)
    except Exception as error:
        code = tell("train", error)
        if code is None:
            raise
        sys.exit(code)  # Hydra would print its own traceback


def help_text() -> str:
    """Return the page that ``arcdist train --help`` prints."""
    return "\n".join(
        [
            "usage: arcdist train [GROUP=CHOICE …] [key=value …] [--cfg job] [-m]",
            "       torchrun --nproc_per_node=N launch/train.py …       the same on N ranks",
            "",
            "  --cfg job   print the configuration that results, and do nothing",
            "  -m          run once for each of several values: -m margin.m2=0.3,0.5",
            "",
            "groups",
            *(f"  {name}={'|'.join(options)}" for name, options in groups().items()),
            "",
            "keys",
            *help_lines(TrainConfig),
        ]
    )
