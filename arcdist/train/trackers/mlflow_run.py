"""A run in MLflow. MLFLOW_TRACKING_URI and its credentials are read by its package, from the environment."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Its own waits, of minutes, would outlast the other ranks' patience. Read when the package is imported, and later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_USER

from arcdist.train.trackers.protocol import Start

_PARAMS_AT_ONCE = 100  # the most that a server takes
_LONGEST_VALUE = 500  # that of every version


class MLflowRun:
    """See ``Tracker``. The configuration is there as parameters, which stay those of the first start, and as a file.

    The summary's numbers are metrics under ``summary/``, and all of it is ``summary.json``.
    """

    def __init__(self, start: Start) -> None:
        self._client = MlflowClient()
        self.run_id = start.run_id
        if self.run_id:
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            self.run_id = self._create(start)
        self._client.log_dict(self.run_id, dict(start.config), "config.json")

    def _create(self, start: Start) -> str:
        found = self._client.get_experiment_by_name(start.project)
        experiment = found.experiment_id if found else self._client.create_experiment(start.project)
        tags = {MLFLOW_USER: "arcdist"}  # not who is logged in
        run_id = self._client.create_run(experiment, run_name=start.name, tags=tags).info.run_id
        params = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in start.config.items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[first : first + _PARAMS_AT_ONCE])
        return run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        now_ms = time.time_ns() // 1_000_000
        self._client.log_batch(self.run_id, [Metric(name, value, now_ms, step) for name, value in values.items()])

    def show_picture(self, name: str, path: Path, step: int) -> None:
        """See ``Tracker``."""
        self._client.log_artifact(self.run_id, str(path))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """See ``Tracker``."""
        self._client.log_dict(self.run_id, dict(summary), "summary.json")
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        self.write(int(summary["steps"]), {f"summary/{key}": float(value) for key, value in numbers.items()})

    def close(self, finished: bool) -> None:
        """See ``Tracker``."""
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")
