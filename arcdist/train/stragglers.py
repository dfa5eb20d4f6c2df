"""Which rank is slow: a step is as slow as its slowest rank, and seen from outside all ranks are as slow as that."""

import contextlib
import logging
import socket
import statistics

import torch

from arcdist.runtime import collectives
from arcdist.runtime.device_clock import DeviceClock

_log = logging.getLogger("arcdist")
_SLOW = 1.5  # times the median of the others
_IN_A_ROW = 3  # reports; a rank may be slow once


class Stragglers:
    """Times what each rank does alone, before it meets the others: waiting for data, and forward passes.

    Args:
        device: of this rank.

    Cost: a time stamp, or on a GPU two events, a forward pass; one gather of a few bytes a report. A rank that has no
    others keeps no times.
    """

    def __init__(self, device: torch.device) -> None:
        self._has_others = collectives.world_size() > 1
        self._alone, self._steps = DeviceClock(device), 0
        self._suspect, self._in_a_row = -1, 0

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Time the block, in which this rank asks no other."""
        return self._alone if self._has_others else contextlib.nullcontext()

    def waited(self, seconds: float) -> None:
        """Count a wait for data, once a step."""
        if self._has_others:
            self._alone.add(seconds)
            self._steps += 1

    def report(self, step: int) -> dict[str, float]:
        """Return the slowest rank and its time alone over the median of the others'; empty where there are no others.

        Every rank calls it at the same step. A rank that is slow in several reports is named in the log.
        """
        if not self._has_others:
            return {}
        told = collectives.gather_objects((self._alone.read() / max(self._steps, 1), socket.gethostname()))
        self._steps = 0
        times = [seconds for seconds, _ in told]
        slowest = times.index(max(times))
        usual = statistics.median(times[:slowest] + times[slowest + 1 :])
        ratio = times[slowest] / max(usual, 1e-9)
        self._in_a_row = self._in_a_row + 1 if ratio > _SLOW and slowest == self._suspect else int(ratio > _SLOW)
        self._suspect = slowest
        if self._in_a_row == _IN_A_ROW and collectives.rank() == 0:
            _log.warning(
                "step %d: rank %d on %s is slow: its own part of a step takes %.3f s, that of the others %.3f s; all "
                "ranks wait for it",
                *(step, slowest, told[slowest][1], times[slowest], usual),
            )
        return {"slowest_rank": slowest, "slowest_rank_times": ratio}
