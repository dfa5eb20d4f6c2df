"""A run's trackers: told from threads of their own, so that a server that is slow or gone costs training nothing."""

import contextlib
import json
import logging
import queue
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcdist.errors import ConfigError
from arcdist.train.trackers.protocol import Start, Tracker

_log = logging.getLogger("arcdist")
_RUN_IDS = "trackers.json"
_WAITING = 1000  # records that wait for a tracker; what comes while so many do is left out
_LEAVING_S = 60.0  # at most, of a run that is done
_STOPPING_S = 10.0  # of one whose machine may be taken away


class FanOut:
    """All trackers of a run, behind the methods of one; none of them ever fails.

    Args:
        kinds: how to open each, by name.
        start: what they begin with.
        resumed: whether the run has been there before.
    """

    def __init__(self, kinds: Mapping[str, Callable[[Start], Tracker]], start: Start, resumed: bool) -> None:
        path = start.folder / _RUN_IDS
        ids = _read_ids(path) if resumed else {}
        self._senders: list[_Sender] = []
        for name, kind in kinds.items():
            try:
                tracker = kind(replace(start, run_id=ids.get(name, "")))
            except Exception as error:
                if not resumed:
                    raise ConfigError(f"log.trackers: {name!r}: does not begin: {_told(error)}") from None
                _log.warning("%s: does not go on: %s; the run goes on without it", name, _told(error))
                continue
            ids[name] = tracker.run_id
            self._senders.append(_Sender(name, tracker))
        if self._senders:
            with contextlib.suppress(OSError):  # of a full disk; the run, started again, would be another one there
                path.write_text(json.dumps(ids) + "\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on values of a step."""
        for sender in self._senders:
            sender.put(lambda tracker: tracker.write(step, values))

    def show_picture(self, name: str, path: Path, step: int) -> None:
        """Hand on a picture."""
        for sender in self._senders:
            sender.put(lambda tracker: tracker.show_picture(name, path, step))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Hand on what the run has reached, and leave the trackers with it done."""
        for sender in self._senders:
            sender.put(lambda tracker: tracker.finish(summary))
        self._leave(finished=True)

    def close(self) -> None:
        """Leave the trackers, of a run that may come again unless ``finish`` was called."""
        self._leave(finished=False)

    def _leave(self, finished: bool) -> None:
        for sender in self._senders:
            sender.put(lambda tracker: tracker.close(finished))
        for sender in self._senders:
            sender.end(_LEAVING_S if finished else _STOPPING_S)
        self._senders = []


class _Sender:
    """A tracker's own thread, and what waits for it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._waiting: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(_WAITING)
        self._warned = False
        self._thread = threading.Thread(target=self._send, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, tell: Callable[[Tracker], None]) -> None:
        """Have the tracker told, soon."""
        try:
            self._waiting.put_nowait(tell)
        except queue.Full:
            self._warn(f"{_WAITING} records wait for it")

    def end(self, seconds: float) -> None:
        """Wait until it was told all, but no longer than that."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
            self._thread.join(seconds)
        if self._thread.is_alive():
            self._warn(f"has not taken all within {seconds:.0f} s")

    def _send(self) -> None:
        while (tell := self._waiting.get()) is not None:
            try:
                tell(self._tracker)
            except Exception as error:
                self._warn(_told(error))

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s: %s; training goes on, and what it does not take is in metrics.jsonl", self._name, what)


def _read_ids(path: Path) -> dict[str, str]:
    try:
        ids = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(run_id) for name, run_id in ids.items()} if isinstance(ids, dict) else {}


def _told(error: Exception) -> str:
    """Return the first line of an error, without the name and password that an address in it may have."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {re.sub(r'//[^/@ ]+@', '//…@', lines[0])[:300]}"
