"""What becomes of a run whose steps are void: loss or gradients were not finite on some rank, so nothing was changed.

A void step is passed over. That is enough where a batch is at fault. Where many follow one another the weights are, and
a run may go back to its newest checkpoint: what a device got wrong once it will get right now. What comes again at the
same step is the recipe's, which nothing but another recipe mends; so the run then stops.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from arcdist.errors import ArcdistError, ConfigError
from arcdist.runtime import collectives
from arcdist.train.verdicts import Verdict

_log = logging.getLogger("arcdist")
POLICIES = ("go_back", "skip", "stop")
REMEDY = (
    "lower optim.lr, lengthen optim.schedule.warmup_steps, set train.clip_norm, or take train.precision=bf16 for fp16"
)


class DivergedError(ArcdistError):
    """The loss is not a number any more."""

    on_every_rank = True


@dataclass
class VoidStepsConfig:
    """How many steps may be void, and what then."""

    policy: str = field(
        default="go_back",
        metadata={
            "help": "of steps whose loss or gradients are not finite: go_back (to the newest checkpoint after limit of "
            "them) | skip (and stop after limit of them) | stop (at the first)"
        },
    )
    limit: int = field(default=10, metadata={"help": "void steps in a row that are passed over"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.policy not in POLICIES:
            raise ConfigError(f"train.void.policy: {self.policy!r}: must be one of {', '.join(POLICIES)}")
        if self.limit < 1:
            raise ConfigError(f"train.void.limit: {self.limit}: must be at least 1")


class VoidSteps:
    """Counts void steps, from what all ranks have agreed on: so all of them decide alike, without asking each other.

    Args:
        config: what to do.
        total_steps: of the run; a run of void steps alone stops at its end at the latest.

    Attributes:
        count: how many there were.
        in_a_row: how many the last steps were; what is saved meanwhile is no checkpoint to go back to.
    """

    def __init__(self, config: VoidStepsConfig, total_steps: int) -> None:
        self.count = 0
        self._policy = config.policy
        self._limit = 1 if config.policy == "stop" else min(config.limit, total_steps)
        self.in_a_row, self._went_back_at = 0, 0

    def too_many(self, verdicts: Iterable[Verdict]) -> bool:
        """Return whether the run must go back to a checkpoint.

        Errors: DivergedError where it must stop.
        """
        for verdict in verdicts:
            if not verdict.skipped:
                self.in_a_row = 0
                continue
            self.count += 1
            self.in_a_row += 1
            told = f"step {verdict.step}: loss or gradients are not finite (the loss is {verdict.loss})"
            if self.in_a_row < self._limit:
                if collectives.rank() == 0:
                    _log.warning("%s; the step is void: it changes nothing", told)
                continue
            if self._policy != "go_back" or verdict.step <= self._went_back_at:
                raise DivergedError(
                    f"{told}, {self.in_a_row} in a row; {REMEDY}; void steps change nothing, so every "
                    "checkpoint is good"
                )
            self.in_a_row, self._went_back_at = 0, verdict.step
            return True
        return False
