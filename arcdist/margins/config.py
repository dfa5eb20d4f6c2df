"""What every margin's configuration has, and how a value that cannot be right is refused."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from arcdist.errors import ConfigError
from arcdist.margins.filtering import InterclassFilter
from arcdist.margins.protocol import Margin


def named(name: str) -> Any:
    """Return the field of a margin's name."""
    return field(default=name, metadata={"help": "which kind this is; margin=NAME sets it with all the others"})


@dataclass
class MarginConfig(ABC):
    """A margin; ``margin=NAME`` chooses which."""

    name: str = named("")
    warmup: float = field(
        default=0.0, metadata={"help": "share of the run over which the margin grows from none to the whole, in [0, 1]"}
    )
    interclass_filter: float = field(
        default=1.0, metadata={"help": "negatives of a larger cosine leave the denominator, in (0, 1]; 1: none does"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        default = type(self).__dataclass_fields__["name"].default
        require(self.name == default != "", "name", self.name, f"be {default!r}; choose another by margin=NAME")
        require(0 <= self.warmup <= 1, "warmup", self.warmup, "be in [0, 1], a share of the run")
        require(0 < self.interclass_filter <= 1, "interclass_filter", self.interclass_filter, "be in (0, 1], a cosine")

    def build(self, num_classes: int | None = None, seed: int = 0) -> Margin:
        """Return the margin.

        Args:
            num_classes: ``C``; without it, margins whose numbers follow from it raise ConfigError.
            seed: of what a margin draws.
        """
        self.validate()
        margin = self._margin(num_classes, seed)
        return InterclassFilter(margin, self.interclass_filter) if self.interclass_filter < 1 else margin

    @abstractmethod
    def _margin(self, num_classes: int | None, seed: int) -> Margin: ...

    def strength(self, step: int, total_steps: int) -> float:
        """Return the share of the margin that counts at a step, in [0, 1]."""
        return min(1.0, step / (self.warmup * total_steps)) if self.warmup else 1.0


def require(right: bool, key: str, value: object, must: str) -> None:
    """Raise ConfigError unless the value of ``margin.key`` is right."""
    if not right:
        raise ConfigError(f"margin.{key}: {value!r}: must {must}")


def require_scale(scale: float) -> None:
    """Raise ConfigError for a scale that cannot be right."""
    require(0 < scale < math.inf, "scale", scale, "be a number above 0; the field uses 30 to 64")


def require_radians(key: str, value: float) -> None:
    """Raise ConfigError for an angle that cannot be right."""
    require(0 <= value < math.pi, key, value, "be in [0, π), in radians, not in degrees")


def require_cosine_margin(key: str, value: float) -> None:
    """Raise ConfigError for a margin on the cosine that cannot be right."""
    require(0 <= value < 2, key, value, "be in [0, 2), a difference of cosines")
