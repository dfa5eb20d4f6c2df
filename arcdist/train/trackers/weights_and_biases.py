"""A run in Weights & Biases. WANDB_MODE, WANDB_API_KEY and the like are read by its package, from the environment."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from arcdist.train.trackers.protocol import Start


class WeightsAndBiases:
    """See ``Tracker``. Its files are in the run's folder; nothing of the terminal or of a git checkout is sent."""

    def __init__(self, start: Start) -> None:
        self.run_id = start.run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=start.project,
            name=start.name,
            id=self.run_id,
            resume="allow",
            dir=start.folder,
            config=dict(start.config),
            allow_val_change=True,  # of a run that goes on with other keys
            # A git remote may have a token in its address.
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )
        self._run.define_metric("*", step_metric="step")  # steps that are done again may come twice

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.log({"step": step, **values})

    def show_picture(self, name: str, path: Path, step: int) -> None:
        """See ``Tracker``."""
        self._run.log({"step": step, name: wandb.Image(str(path))})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """See ``Tracker``."""
        self._run.summary.update(dict(summary))

    def close(self, finished: bool) -> None:
        """See ``Tracker``."""
        self._run.finish(exit_code=0 if finished else 1)
