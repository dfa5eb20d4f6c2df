"""AdaCos: no margin, and a scale that follows from the number of classes and from how far training has come."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.margins.config import MarginConfig, named
from arcdist.margins.protocol import Margin


@dataclass
class AdaCosConfig(MarginConfig):
    """AdaCos: the normalized softmax whose scale needs no tuning; it has no margin, so ``warmup`` does nothing."""

    name: str = named("adacos")
    dynamic: bool = field(default=True, metadata={"help": "whether the scale follows the training; false: it is fixed"})

    def _margin(self, num_classes: int | None, seed: int) -> "AdaCos":
        if num_classes is None or num_classes < 3:
            raise ConfigError(f"margin=adacos: its scale follows from the number of classes, at least 3: {num_classes}")
        return AdaCos(num_classes, self.dynamic)


class AdaCos(Margin):
    """``scale · cos θ`` with a scale that adapts itself, arXiv:1905.00292.

    Fixed (section 4.1): √2 · ln(C − 1). Dynamic (section 4.2): ln B / cos(min(π/4, θ_med)), where θ_med is the median
    angle to the own center and B the rows' mean of Σ exp(scale · cos θ) over their negatives: of the global batch, by
    the scale that it was scored with. The paper scores a batch by the scale that it gives; here the next one is. The
    median of an even number is the lower cosine's. Not below 1, where few classes would leave no scale at all. With
    fewer classes sampled in a step the scale is smaller, as the sum is.

    Reading ``scale`` makes the host wait for a GPU, once a round.
    """

    current: Tensor

    def __init__(self, num_classes: int, dynamic: bool = True) -> None:
        super().__init__()
        self.dynamic = dynamic
        self.register_buffer("current", torch.tensor(math.sqrt(2) * math.log(num_classes - 1), dtype=torch.float64))
        self._cosines: list[Tensor] = []
        self._negatives: list[Tensor] = []

    @property
    def scale(self) -> float:  # ty: ignore[incompatible-property-override]
        """Multiplies every logit."""
        return float(self.current)

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        return self.current * cosine

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """Remember how the rows were scored."""
        if self.dynamic:
            self._cosines.append(cosine)
            self._negatives.append(negatives)

    def end_step(self) -> None:
        """Set the scale of the next step."""
        if not self._cosines:
            return
        cosines, negatives = torch.cat(self._cosines), torch.cat(self._negatives)
        self._cosines.clear()
        self._negatives.clear()
        log_mean = negatives.logsumexp(0) - math.log(len(negatives))
        nearness = cosines.median().clamp(math.cos(math.pi / 4), 1)
        self.current.copy_((log_mean / nearness).clamp_min(1))
