"""``train.profile``: a trace of some steps on every rank, for Perfetto, TensorBoard or ``arcdist bench picture``."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerAction, profile

from arcdist.errors import ConfigError

_log = logging.getLogger("arcdist")
_WARM_UP = 2  # steps that the profiler sees and forgets: its own start is slow
_MOST = 100  # steps; a step of a deep net leaves megabytes


def check_profiled_steps(steps: Sequence[int]) -> None:
    """Raise ConfigError where steps cannot be traced."""
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1] < steps[0] + _MOST):
        raise ConfigError(
            f"train.profile: {list(steps)}: must be the first and the last step to trace, counted from 1, at most "
            f"{_MOST} steps, such as [100,105]; or []"
        )


class StepProfile:
    """The trace of a run's steps on this rank, ``FOLDER/profile/rank_N.pt.trace.json``.

    Args:
        steps: first and last, counted from 1; empty: nothing is traced.
        folder: of the run.
        rank: of this process.
        device: of this process.
    """

    def __init__(self, steps: Sequence[int], folder: Path, rank: int, device: torch.device) -> None:
        self._steps = (steps[0], steps[1]) if steps else None
        self.path = folder / "profile" / f"rank_{rank}.pt.trace.json"
        self._activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            self._activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile: profile | None = None

    def begin(self, step: int) -> None:
        """Take note that step ``step``, counted from 1, begins with the wait for its batch."""
        if self._profile is not None:
            self._profile.step()
        elif self._steps and max(1, self._steps[0] - _WARM_UP) <= step <= self._steps[0]:
            self._begin(self._steps[0] - step, self._steps[1] - self._steps[0] + 1)
        if self._steps and step > self._steps[1]:
            self.close()

    def _begin(self, warm_up: int, steps: int) -> None:
        def action(count: int) -> ProfilerAction:
            if count < warm_up:
                return ProfilerAction.WARMUP
            if count >= warm_up + steps:
                return ProfilerAction.NONE
            return ProfilerAction.RECORD_AND_SAVE if count + 1 == warm_up + steps else ProfilerAction.RECORD

        self._profile = profile(activities=self._activities, schedule=action, on_trace_ready=self._write)
        self._profile.start()

    def _write(self, finished: profile) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            finished.export_chrome_trace(str(self.path))
        except OSError as error:
            _log.warning("train.profile: %s is NOT WRITTEN: %s; training goes on", self.path, error.strerror or error)
            return
        _log.info("train.profile: %s", self.path)

    def close(self) -> None:
        """End the tracing; a run that ends earlier leaves the steps that it has done."""
        if self._profile is not None:
            self._profile.stop()
        self._profile, self._steps = None, None
