"""BatchNorm's running statistics, kept so that they do not depend on the number of ranks.

The micro-batch is the unit of BatchNorm: a step of several micro-batches moves the running statistics once, by the
mean over all of them. Being linear in what they average, they may be kept apart on each rank and be averaged when
they are read.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arcdist.runtime import collectives


class RunningStatistics:
    """The running statistics of a model's BatchNorm layers over steps of several micro-batches.

    Args:
        model: whose layers keep the momentum that they have now as the momentum of a step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        self.momenta = [0.1 if layer.momentum is None else layer.momentum for layer in self.layers]
        self._before: list[Tensor] = []

    def begin_round(self, index: int) -> None:
        """Prepare the ``index``-th micro-batch of this rank in a step: the layers now hold the mean of the rounds."""
        if index == 0:
            self._before = [buffer.clone() for buffer in self._buffers()]
        for layer in self.layers:
            layer.momentum = 1 / (index + 1)

    def end_step(self) -> None:
        """Move the running statistics once by the mean of the step's rounds."""
        for layer, momentum in zip(self.layers, self.momenta):
            layer.momentum = momentum
        weights = [momentum for momentum in self.momenta for _ in range(2)]
        for buffer, before, weight in zip(self._buffers(), self._before, weights):
            buffer.copy_(torch.lerp(before, buffer, weight))

    def average_over_ranks(self) -> None:
        """Make the running statistics the mean over ranks, in place; for evaluation and for a checkpoint."""
        buffers = self._buffers()
        if collectives.world_size() == 1 or not buffers:
            return
        total = collectives.all_reduce_sum(torch.cat([buffer.flatten() for buffer in buffers]))
        parts = total.div_(collectives.world_size()).split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts):
            buffer.copy_(part.view_as(buffer))

    def _buffers(self) -> list[Tensor]:
        both = [(layer.running_mean, layer.running_var) for layer in self.layers]
        return [buffer for pair in both for buffer in pair if buffer is not None]
