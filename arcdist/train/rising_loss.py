"""A loss that leaps up while it stays a number: said once, while there is time to do something about it."""

import logging
import statistics
from collections import deque

from arcdist.train.void_steps import REMEDY

_log = logging.getLogger("arcdist")
_RECORDS = 20  # that a new one is held against
_LEAST = 8  # of them, before anything is said
_DEVIATIONS = 5.0  # of the median absolute deviation
_SHARE = 0.2  # of the median: what losses that hardly differ must at least leap by


class RisingLoss:
    """Holds each recorded loss against the median of those just before it."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=_RECORDS)
        self._told = False

    def look_at(self, step: int, loss: float) -> None:
        """Warn, once until it has come down, where a record's loss is far above the last ones."""
        usual = statistics.median(self._before) if self._before else loss
        spread = statistics.median(abs(one - usual) for one in self._before) if self._before else 0.0
        leaps = len(self._before) >= _LEAST and loss > usual + max(_DEVIATIONS * spread, _SHARE * abs(usual))
        if leaps and not self._told:
            _log.warning(
                "step %d: the loss has leapt to %.3f from about %.3f; the run may be diverging: %s. It goes on",
                *(step, loss, usual, REMEDY),
            )
        self._told = leaps
        self._before.append(loss)

    def forget(self) -> None:
        """Begin anew, where a run has gone back."""
        self._before.clear()
