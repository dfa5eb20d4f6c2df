"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math
from dataclasses import dataclass, field

from arcdist.errors import ConfigError

SHAPES = ("polynomial", "cosine", "step", "constant")


@dataclass
class ScheduleConfig:
    """How the learning rate runs from its peak to its end; every shape may warm up first."""

    name: str = field(default="polynomial", metadata={"help": "polynomial | cosine | step | constant"})
    power: float = field(default=2.0, metadata={"help": "of the polynomial; 1 is a straight line"})
    final: float = field(default=0.0, metadata={"help": "last learning rate, as a share of the peak"})
    milestones: list[float] = field(default_factory=list, metadata={"help": "where `step` drops, in epochs"})
    milestones_steps: list[int] = field(default_factory=list, metadata={"help": "the same in steps, instead"})
    gamma: float = field(default=0.1, metadata={"help": "what `step` multiplies by at each milestone"})
    warmup_epochs: float = field(default=0.0, metadata={"help": "straight rise from 0, in epochs"})
    warmup_steps: int = field(default=0, metadata={"help": "the same in steps; the longer of the two counts"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.name not in SHAPES:
            raise ConfigError(f"optim.schedule.name: {self.name!r}: must be one of {', '.join(SHAPES)}")
        if not 0 < self.power < math.inf:
            raise ConfigError(f"optim.schedule.power: {self.power}: must be above 0, and finite")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"optim.schedule.gamma: {self.gamma}: must be in (0, 1]")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"optim.schedule.final: {self.final}: must be in [0, 1], a share of optim.lr")
        for key in ("warmup_epochs", "warmup_steps"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(f"optim.schedule.{key}: {getattr(self, key)}: must be 0 or above, and finite")
        for key in ("milestones", "milestones_steps"):
            values = list(getattr(self, key))
            if sorted(values) != values or not all(0 <= value < math.inf for value in values):
                raise ConfigError(f"optim.schedule.{key}: {values}: must rise from 0 or above, and be finite")
        if self.milestones and self.milestones_steps:
            raise ConfigError("optim.schedule.milestones and milestones_steps: set one of them")
        if self.name == "step" and not self.milestones and not self.milestones_steps:
            raise ConfigError("optim.schedule.milestones: empty, but optim.schedule.name is 'step'")

    def build(self, total_steps: int, steps_per_epoch: float) -> "Schedule":
        """Return the schedule of a run."""
        self.validate()
        warmup = max(self.warmup_steps, round(self.warmup_epochs * steps_per_epoch))
        milestones = list(self.milestones_steps) or [round(epoch * steps_per_epoch) for epoch in self.milestones]
        return Schedule(self, total_steps, warmup, milestones)


@dataclass(frozen=True)
class Schedule:
    """``schedule(step)``: the share of the peak learning rate at a step, counted from 0."""

    config: ScheduleConfig
    total_steps: int
    warmup_steps: int
    milestones: list[int]

    def __call__(self, step: int) -> float:
        """Return the share of the peak, in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self._share(min(progress, 1.0), step)

    def _share(self, progress: float, step: int) -> float:
        config = self.config
        if config.name == "polynomial":
            return config.final + (1 - config.final) * (1 - progress) ** config.power
        if config.name == "cosine":
            return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2
        if config.name == "step":
            return config.gamma ** sum(step >= milestone for milestone in self.milestones)
        return 1.0
