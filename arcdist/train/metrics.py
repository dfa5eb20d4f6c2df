"""What a run tells while it trains: a progress bar, TensorBoard, and a line of JSON for every record."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from arcdist.data.decode import decode
from arcdist.runtime.progress import shows_bars
from arcdist.train.rising_loss import RisingLoss
from arcdist.train.trackers.fan_out import FanOut
from arcdist.train.work import Work

_log = logging.getLogger("arcdist")
_MOST_LINES = 1000  # of a run where there is no bar; metrics.jsonl has every record


class Metrics:
    """Rank 0's records of a run. The losses are read from the device once in ``every`` steps.

    Args:
        folder: of the run; ``metrics.jsonl`` and ``tensorboard/`` are made in it.
        every: steps between two records.
        total_steps: of the whole run.
        first_step: steps that were done before this process began.
        global_batch_size: images of a step.
        quiet: true on every other rank, which records nothing.
        train_s: seconds of training before this process began.
        trackers: who else is told; rank 0's.
        work: tells each record's arithmetic and memory.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        total_steps: int,
        first_step: int,
        global_batch_size: int,
        quiet: bool,
        train_s: float = 0.0,
        trackers: FanOut | None = None,
        work: Work | None = None,
    ) -> None:
        self.trackers = trackers
        self.every, self.total_steps, self.first_step = every, total_steps, first_step
        self.global_batch_size, self.quiet = global_batch_size, quiet
        self.path = folder / "metrics.jsonl"
        self.train_s, self.wait_s = train_s, 0.0
        self._losses: list[Tensor] = []  # [1 + parts] each
        self._names: list[str] = []
        self._steps_between_lines = every * math.ceil(total_steps / every / _MOST_LINES)
        self._rising = RisingLoss()
        self._work = work
        self._torn = False  # whether the file's last line may be cut
        self._mark = time.monotonic()
        self._recorded_step, self._recorded_s, self._recorded_wait_s = first_step, train_s, 0.0
        self._board = None if quiet else SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._bar = _progress_bar() if not quiet and shows_bars() else None
        if not quiet:
            _keep_records_until(self.path, first_step)
        if self._bar:
            self._task = self._bar.add_task("train", total=total_steps, completed=first_step, note="")
            self._bar.start()

    @property
    def images_per_s(self) -> float:
        """Images a second of all ranks over the whole run, evaluation and checkpoints apart."""
        return self._recorded_step * self.global_batch_size / max(self.train_s, 1e-9)

    def waited_for_data(self, seconds: float) -> None:
        """Note how long a step waited for its batch."""
        self.wait_s += seconds

    def record(
        self,
        step: int,
        loss: Tensor,
        learning_rate: float,
        more: Mapping[str, float],
        parts: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take note of step ``step`` (counted from 1), whose loss may still be computing.

        What is recorded is the mean of the losses that are finite, and what more is told of the step. ``parts`` are
        what the loss is the sum of, the same names at every step.
        """
        self._names = [f"losses/{name}" for name in parts or {}]
        self._losses.append(torch.stack([loss, *(parts or {}).values()]))
        if self._bar:
            self._bar.update(self._task, completed=step)
        if step % self.every == 0 or step == self.total_steps:
            self._write_losses(step, learning_rate, more)

    def _write_losses(self, step: int, learning_rate: float, more: Mapping[str, float]) -> None:
        finite = [losses for losses in torch.stack(self._losses).tolist() if math.isfinite(losses[0])]
        means = [sum(losses) / len(finite) for losses in zip(*finite)] or [math.nan] * (1 + len(self._names))
        self._losses.clear()
        self.pause()
        seconds, self._recorded_s = self.train_s - self._recorded_s, self.train_s
        waited, self._recorded_wait_s = self.wait_s - self._recorded_wait_s, self.wait_s
        steps, self._recorded_step = step - self._recorded_step, step
        rate = steps * self.global_batch_size / max(seconds, 1e-9)
        loss, *parts = means
        if not self.quiet and math.isfinite(loss):
            self._rising.look_at(step, loss)
        stall = waited / max(seconds, 1e-9)
        values = {"loss": loss, "learning_rate": learning_rate, "images_per_s": rate, "data_wait_share": stall}
        if self._work is not None and not self.quiet:
            values |= self._work.told(step, rate)
            self.resume()  # counting takes a second or more, once
        self.write(step, {**values, **dict(zip(self._names, parts)), **more})
        if self._bar:
            self._bar.update(self._task, note=f"loss {loss:.3f}  {rate:,.0f} images/s")
        elif not self.quiet and (step % self._steps_between_lines == 0 or step == self.total_steps):
            left = _clock((self.total_steps - step) * self.global_batch_size / max(self.images_per_s, 1e-9))
            told = f"loss {loss:.3f}  lr {learning_rate:.4f}  {rate:,.0f} images/s  {left} left"
            _log.info("step %d/%d  %s", step, self.total_steps, told)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record values of a step in the file and on TensorBoard; those that are not finite are left out."""
        if self._board is None:
            return
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._training_on(step):
            with self.path.open("a") as file:
                file.write(("\n" if self._torn else "") + json.dumps({"step": step, **values}) + "\n")
            self._torn = False
            named = {name if "/" in name else f"train/{name}": value for name, value in values.items()}
            for name, value in named.items():
                self._board.add_scalar(name, value, step)
            if self.trackers is not None:
                self.trackers.write(step, named)

    @contextlib.contextmanager
    def _training_on(self, step: int) -> Generator[None]:
        """Let a full disk, which may have room again, cost a record and no more."""
        try:
            yield
        except OSError as error:
            _log.warning("step %d is NOT RECORDED in %s: %s; training goes on", step, self.path.parent, error.strerror)
            self._torn = True
            with contextlib.suppress(OSError):  # a writer that has failed once does not write again
                self._board = SummaryWriter(str(self.path.parent / "tensorboard"))

    def show_distribution(self, name: str, values: Tensor | None, step: int) -> None:
        """Put a histogram of ``[n]`` values on rank 0's TensorBoard, which waits for the device."""
        if self._board is not None and values is not None and bool(values.isfinite().all()):
            with self._training_on(step):
                self._board.add_histogram(f"train/{name}", values.cpu().numpy(), step)

    def show_picture(self, name: str, path: Path, step: int) -> None:
        """Put a PNG on TensorBoard."""
        if self._board is not None:
            with self._training_on(step):
                self._board.add_image(name, decode(path.read_bytes(), path.name), step, dataformats="HWC")
                if self.trackers is not None:
                    self.trackers.show_picture(name, path, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tell the trackers that the run is done, and what it has reached."""
        if self.trackers is not None:
            self.trackers.finish(summary)

    def pause(self) -> None:
        """Stop the clock of training and start it again at once; what came before counts as training."""
        now = time.monotonic()
        self.train_s += now - self._mark
        self._mark = now

    def resume(self) -> None:
        """Start the clock of training; what came since ``pause`` does not count."""
        self._mark = time.monotonic()

    def go_back(self, step: int) -> None:
        """Forget what was recorded after ``step``: it will be done again."""
        self._losses.clear()
        self._rising.forget()
        self._recorded_step = step
        if self._board is not None:
            _keep_records_until(self.path, step)
            self._board.close()
            self._board = SummaryWriter(self._board.log_dir, purge_step=step + 1)

    def history(self) -> list[dict[str, Any]]:
        """Return every record of the run, those before a restart included."""
        return list(_read(self.path))

    def take_bar_down(self) -> None:
        """End the progress bar, before anything else is printed."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        """Write out what is buffered, and take the progress bar down."""
        self.take_bar_down()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()
        if self.trackers is not None:
            self.trackers.close()


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a line that was cut by the end of a process is passed over."""
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _keep_records_until(path: Path, step: int) -> None:
    """Drop the records of steps that will be done again."""
    if path.exists():
        kept = [json.dumps(record) + "\n" for record in _read(path) if step > 0 and record["step"] <= step]
        aside = path.with_name(path.name + ".partial")
        aside.write_text("".join(kept))
        aside.replace(path)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("training"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("·"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
