"""What is done with a record that cannot be read: it ends the run, or another takes its place."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from arcdist.data.order import Order
from arcdist.errors import DataError

_log = logging.getLogger("arcdist")


class BadRecords:
    """The policy for bad records, and those that this rank has met; threads share it.

    Each process has a copy: what it has met is its `news`, which the rank's own is to `learn`.

    Args:
        skips: whether another image takes the place of a bad one.
        share: of the data set that may be bad; one record always may, all never.
        order: of the run.
    """

    def __init__(self, skips: bool, share: float, order: Order) -> None:
        self.skips = skips
        self._order = order
        self._most = min(max(1, int(share * order.size)), order.size - 1)
        self._met: dict[int, str] = {}
        self._told = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many bad records were met."""
        return len(self._met)

    def replace(self, take: Callable[[int], None], sample: int, position: int) -> None:
        """Call ``take`` with the sample, or, while that raises DataError and it may, with another in its place.

        Which one depends on the seed and the position in the run: it is the same on any rank, and after a restart.

        Raises:
            DataError: of ``take``; or too many bad records.
        """
        attempt = 0
        while True:
            try:
                return take(sample)
            except DataError as error:
                if not self.skips:
                    raise
                self._note(sample, str(error))
            sample = self._order.substitute(position, attempt)
            attempt += 1

    def news(self) -> list[tuple[int, str]]:
        """Return the bad records, and what is wrong with each, that were met since the last call."""
        met = list(self._met.items())
        news, self._told = met[self._told :], len(met)
        return news

    def learn(self, news: list[tuple[int, str]]) -> None:
        """Take bad records that another process has met for met; DataError where they are too many."""
        for sample, what in news:
            self._note(sample, what)

    def _note(self, sample: int, what: str) -> None:
        with self._lock:
            if sample in self._met:
                return
            self._met[sample] = what
            count = len(self._met)
        if count > self._most:
            raise DataError(
                f"{what}; it is record number {count} of {self._order.size} that cannot be read, and data.loader."
                f"bad_share allows {self._most}: mend the file (arcdist inspect --verify lists what is wrong)"
            )
        _log.warning("skipped (%d so far): %s", count, what)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state, _lock=threading.Lock())
