"""What a head asks of a margin."""

from typing import Protocol

from torch import Tensor


class Margin(Protocol):
    """A margin that touches only the target's logit; every other logit is ``scale · cosine``."""

    scale: float

    def target_logit(self, cosine: Tensor) -> Tensor:
        """Return the target's logit, scale applied, of ``cosine``'s shape and dtype."""
        ...
