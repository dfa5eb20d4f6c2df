"""BatchNorm's running statistics, kept so that they do not depend on the number of ranks.

The micro-batch is the unit of BatchNorm: a step moves the running statistics once, by the mean over all micro-batches
of the global batch. They are the same on every rank after every step, so saving and evaluating need not touch them.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arcdist.runtime import collectives


class RunningStatistics:
    """The running statistics of a model's BatchNorm layers over steps of several micro-batches.

    Args:
        model: whose layers keep the momentum that they have now as the momentum of a step. Those that are not in
            training mode, being frozen, are passed by.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
        ]
        self.momenta = [0.1 if layer.momentum is None else layer.momentum for layer in self.layers]
        self.steps = [layer.num_batches_tracked for layer in self.layers if layer.num_batches_tracked is not None]
        self._before: list[Tensor] = []
        self._earlier: list[Tensor] = []  # the sum over this rank's rounds of a step but the last one
        self._rounds = 1
        self._momentum: Tensor | None = None

    def begin_round(self, index: int) -> None:
        """Prepare the ``index``-th micro-batch of this rank in a step: the layers will hold its statistics alone.

        (A momentum that changed with the rounds would be compiled anew for each.)
        """
        self._rounds = index + 1
        if index == 0:
            self._before = [buffer.clone() for buffer in self._buffers()]
            self._earlier = [torch.zeros_like(buffer) for buffer in self._before]
        else:
            for sums, buffer in zip(self._earlier, self._buffers()):
                sums += buffer
            for steps in self.steps:
                steps -= 1  # the layer counts its calls; a step is one
        for layer in self.layers:
            layer.momentum = 1.0

    def end_step(self, flags: Tensor) -> Tensor:
        """Move the running statistics once by the mean of all ranks' rounds; return the sum over ranks of ``flags``.

        Args:
            flags: ``[n]``, numbers that travel with the statistics. Where the sum of the first one is not 0, the step
                is void and the statistics stay.

        Communication: one all-reduce of ``n`` numbers and two a channel.
        """
        for layer, momentum in zip(self.layers, self.momenta):
            layer.momentum = momentum
        buffers = self._buffers()
        if not buffers:
            return collectives.all_reduce_sum(flags)
        torch._foreach_add_(self._earlier, buffers)
        torch._foreach_div_(self._earlier, self._rounds)
        mine = torch.cat([flags.to(buffers[0]), *(mean.flatten() for mean in self._earlier)])
        summed, total = collectives.all_reduce_sum(mine).split([len(flags), len(mine) - len(flags)])
        before = torch.cat([buffer.flatten() for buffer in self._before])
        moved = torch.lerp(before, total / collectives.world_size(), self._weights(buffers))
        moved = torch.where(summed[0] > 0, before, moved)
        parts = moved.split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers)])
        return summed.to(flags.dtype)

    def _weights(self, buffers: list[Tensor]) -> Tensor:
        """Return the momentum of every number in the buffers, one after another."""
        if self._momentum is None:
            momenta = [momentum for momentum in self.momenta for _ in range(2)]
            counts = [buffer.numel() for buffer in buffers]
            flat = torch.tensor(momenta, dtype=torch.float64).repeat_interleave(torch.tensor(counts))
            self._momentum = flat.to(buffers[0])
        return self._momentum

    def _buffers(self) -> list[Tensor]:
        both = [(layer.running_mean, layer.running_var) for layer in self.layers]
        return [buffer for pair in both for buffer in pair if buffer is not None]
