"""Which share of a step a rank spends in collectives."""

import contextlib
from collections.abc import Generator

import torch
from torch import nn

from arcdist.runtime import collectives
from arcdist.runtime.device_clock import DeviceClock


class Communication:
    """Times this rank's steps, and in them its collectives, the wait for other ranks included.

    What DDP sends while the backward pass goes on costs no time of its own; its part begins when the backbone's first
    parameter has its gradient, which is the last to get one. Alone, a rank keeps no times.

    Args:
        backbone: before DDP wraps it, whose hooks come later.
        device: of this rank.

    Cost: two time stamps a collective, on a GPU two events; a reading waits for the device.
    """

    def __init__(self, backbone: nn.Module, device: torch.device) -> None:
        self._has_others = collectives.world_size() > 1
        self._step, self._collectives = DeviceClock(device), DeviceClock(device)
        self._sums_gradients = False
        first = next((parameter for parameter in backbone.parameters() if parameter.requires_grad), None)
        if self._has_others and first is not None:
            first.register_post_accumulate_grad_hook(self._last_gradient)

    @contextlib.contextmanager
    def step(self) -> Generator[None]:
        """Time the block, a step."""
        if not self._has_others:
            yield
            return
        with self._step, collectives.timed(self._collectives):
            yield

    @contextlib.contextmanager
    def backward(self, sums_gradients: bool) -> Generator[None]:
        """Run a backward pass in the block, at whose end DDP sums the gradients of all ranks, or does not."""
        self._sums_gradients = sums_gradients
        try:
            yield
        finally:
            self._sums_gradients = False
            self._collectives.stop()

    def _last_gradient(self, _: torch.Tensor) -> None:
        if self._sums_gradients:
            self._collectives.start()

    def report(self) -> dict[str, float]:
        """Return ``communication_share`` of the steps since the last report; empty where there are no others."""
        if not self._has_others:
            return {}
        step_s = self._step.read()
        return {"communication_share": self._collectives.read() / max(step_s, 1e-9)}
