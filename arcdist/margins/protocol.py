"""What a head asks of a margin."""

from typing import Protocol

from torch import Tensor


class Margin(Protocol):
    """A margin that touches only the target's logit; every other logit is ``scale · cosine``.

    ``strength`` in [0, 1] is the share of the margin that counts, which a run may let grow.
    """

    scale: float
    strength: float

    def target_logit(self, cosine: Tensor) -> Tensor:
        """Return the target's logit, scale applied, of ``cosine``'s shape and dtype."""
        ...
