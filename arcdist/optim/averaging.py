"""An exponential moving average of a backbone's weights, which often verifies better than the last ones."""

import torch
from torch import Tensor, nn

from arcdist.runtime.fully_sharded import duplicate, part_of


class AveragedWeights:
    """A copy of a model whose every number follows the model's: ``a ← decay · a + (1 − decay) · w`` a step.

    BatchNorm's running statistics are averaged too, so that they fit the weights that they are used with. The weights
    being the same on every rank, so is the average; nothing is communicated.

    Args:
        model: that is trained, without a wrapper; where ranks share its weights out, they share the average's too.
        decay: in [0, 1).

    Memory: that of the weights, or of this rank's part of them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = duplicate(model).requires_grad_(False)
        self._pairs = [
            (part_of(mean), part_of(now))
            for mean, now in zip(self.model.state_dict().values(), model.state_dict().values())
            if mean.is_floating_point()
        ]

    @torch.no_grad()
    def update(self, count: int, void: Tensor) -> None:
        """Move on after a step.

        Args:
            count: steps that are done; the first ones forget faster, for the weights of a beginning mean little.
            void: 1 where the step was void, and the average stays; on the device, so that the host need not wait.
        """
        decay = min(self.decay, count / (count + 10))
        weight = (1 - decay) * (1 - void.double())
        for mean, now in self._pairs:
            mean.lerp_(now, weight.to(mean.dtype))

    def restart(self) -> None:
        """Begin again from the model's present weights."""
        for mean, now in self._pairs:
            mean.copy_(now)
