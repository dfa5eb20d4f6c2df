"""What all ranks have agreed on in a step, without any of them waiting for its device.

Each rank's flags are summed over the ranks in a reduction that the step makes anyway. On a GPU the sums are read a few
steps late, from a copy that came meanwhile: every rank reads the same flags of the same step, so all act alike.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

GPU_LAG = 2  # steps that a GPU may be behind its host before the host waits


@dataclass(frozen=True)
class Verdict:
    """What came of a step, the same on every rank.

    Attributes:
        step: which one, counted from 1.
        loss: of the global batch.
        skipped: whether loss or gradients were not finite, so that nothing was changed.
        stop: whether any rank had been asked to stop.
    """

    step: int
    loss: float
    skipped: bool
    stop: bool


class Verdicts:
    """The verdicts that are still on their way from the device."""

    def __init__(self, device: torch.device) -> None:
        self.lag = GPU_LAG if device.type == "cuda" else 0
        self._coming: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, loss: Tensor, flags: Tensor) -> None:
        """Take a step's loss, a scalar, and its flags ``[2]``, summed over the ranks: not finite, asked to stop."""
        values = torch.cat([loss.view(1).float(), flags])
        event = None
        if values.device.type == "cuda":
            values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._coming.append((step, values, event))

    def read(self, all_of_them: bool = False) -> list[Verdict]:
        """Return the verdicts that are due, in the order of the steps.

        Args:
            all_of_them: also those that the device has not yet reached; the host waits.
        """
        read = []
        while len(self._coming) > (0 if all_of_them else self.lag):
            step, values, event = self._coming.popleft()
            if event is not None:
                event.synchronize()
            loss, broken, asked = values.tolist()
            read.append(Verdict(step, loss, broken > 0, asked > 0))
        return read

    def forget(self) -> None:
        """Drop what is on its way, when a run goes back to a checkpoint."""
        self._coming.clear()
