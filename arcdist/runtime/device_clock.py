"""A stop watch for what a device does, which the host does not wait for."""

import time

import torch


class DeviceClock:
    """Sums up the seconds between ``start`` and ``stop``; ``with clock:`` does both.

    On a GPU these are events on the current stream, so it counts what the stream does between them. One that is stopped
    while it does not run, or started while it runs, changes nothing.

    Args:
        device: whose time it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._began_s: float | None = None
        self._began: torch.cuda.Event | None = None
        self._sum_s = 0.0
        self._stretches: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """Let it run."""
        if self._on_gpu:
            self._began = self._began or _event_now()
        elif self._began_s is None:
            self._began_s = time.perf_counter()

    def stop(self) -> None:
        """Let it run no more."""
        if self._began is not None:
            self._stretches.append((self._began, _event_now()))
            self._began = None
        elif self._began_s is not None:
            self._sum_s += time.perf_counter() - self._began_s
            self._began_s = None

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, seconds: float) -> None:
        """Count seconds that were measured otherwise."""
        self._sum_s += seconds

    def read(self) -> float:
        """Return the seconds since the last reading, and wait for the device to have come so far."""
        for began, ended in self._stretches:
            ended.synchronize()
            self._sum_s += began.elapsed_time(ended) / 1000
        self._stretches.clear()
        seconds, self._sum_s = self._sum_s, 0.0
        return seconds


def _event_now() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
