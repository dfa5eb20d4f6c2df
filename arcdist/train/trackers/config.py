"""Which trackers a run tells of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from arcdist.errors import ConfigError
from arcdist.train.trackers.fan_out import FanOut
from arcdist.train.trackers.protocol import Start, Tracker

_ALWAYS = "tensorboard"


def _wandb(start: Start) -> Tracker:
    from arcdist.train.trackers.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases(start)


def _mlflow(start: Start) -> Tracker:
    from arcdist.train.trackers.mlflow_run import MLflowRun

    return MLflowRun(start)


TRACKERS: dict[str, Callable[[Start], Tracker]] = {"wandb": _wandb, "mlflow": _mlflow}


@dataclass
class LogConfig:
    """Where metrics go. Servers and keys are in the environment: a configuration is logged, and has no secrets."""

    trackers: list[str] = field(
        default_factory=list,
        metadata={"help": "where metrics go beside TensorBoard: wandb, mlflow; each by its extra (arcdist[wandb])"},
    )
    project: str = field(default="arcdist", metadata={"help": "the project of Weights & Biases, MLflow's experiment"})

    @property
    def chosen(self) -> list[str]:
        """The trackers apart from TensorBoard, each once."""
        return [name for name in dict.fromkeys(self.trackers) if name != _ALWAYS]

    def validate(self) -> None:
        """Raise ConfigError for a tracker that is not known, or whose package is not installed."""
        for name in self.chosen:
            if name not in TRACKERS:
                raise ConfigError(f"log.trackers: {name!r}: must be one of {', '.join([_ALWAYS, *TRACKERS])}")
            spec = find_spec(name)
            if spec is None or spec.origin is None:  # without an origin it is some folder of that name
                raise ConfigError(
                    f"log.trackers: {name!r}: its package is not installed; pip install 'arcdist[{name}]'"
                )
        if not self.project:
            raise ConfigError("log.project: must not be empty")

    def open(self, folder: Path, name: str, config: Mapping[str, Any], resumed: bool) -> FanOut:
        """Return the trackers, opened, on the one rank that logs; a run that goes on goes on in the same ones.

        Errors: ConfigError where a tracker does not let a new run begin; a resumed run warns, and goes on without it.
        """
        start = Start(folder, self.project, name, config)
        return FanOut({each: TRACKERS[each] for each in self.chosen}, start, resumed)
