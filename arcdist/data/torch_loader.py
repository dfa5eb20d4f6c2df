"""Batches, decoded and augmented by threads into the batch's own memory, or by processes into shared memory.

libjpeg-turbo and OpenCV let go of the interpreter while they work, so a few threads are enough; many wait for it.
Either way there is no pickling of images, no tensor for each sample and no collating.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from arcdist.data.augment import Augment
from arcdist.data.bad_records import BadRecords
from arcdist.data.order import Order, rows_of_step
from arcdist.data.row_filler import Dataset, RowFiller
from arcdist.data.worker_processes import WorkerProcesses
from arcdist.errors import ConfigError

_MOST_ROWS, _LEAST_ROWS = 128, 16  # of a task of a thread: handing out single rows would take a third of the time
_ORDERED_AT_ONCE = 1024  # rows whose samples are computed together, which a row alone takes 20 times as long for
_FLOATS = (np.arange(256, dtype=np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a global batch.

    ``images`` are ``[b, 3, H, W]`` in channels_last memory, RGB: uint8 as decoded, or float32 in [-1, 1] after `to`.
    ``labels`` are int64 ``[b]``, global class ids.
    """

    images: Tensor
    labels: Tensor

    def to(self, device: "torch.device | str") -> "Batch":
        """Return the batch on ``device``, its images float32 in [-1, 1].

        The bytes travel, and are normalized there: a quarter of the traffic. From pinned memory the copy overlaps
        with what the device is computing.
        """
        images = self.images.to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = images.float().div_(127.5).sub_(1) if images.is_cuda else _normalized(images)
        return Batch(images, self.labels.to(device, non_blocking=True))


LOADERS = ("auto", "torch", "dali")
POLICIES = ("error", "skip")
WORKERS = ("threads", "processes")


@dataclass
class LoaderConfig:
    """How a rank's batches are made; changes their speed, never their content but for how a GPU rounds pixels.

    What is put in the place of a bad record depends on the seed and the position in the run alone.
    """

    workers: int = field(default=4, metadata={"help": "threads or processes of a rank that decode and augment"})
    prefetch: int = field(default=4, metadata={"help": "batches that are made while one is trained on"})
    kind: str = field(
        default="auto",
        metadata={"help": "torch | dali | auto (dali on a GPU where it is installed; torch for processes)"},
    )
    workers_are: str = field(
        default="threads",
        metadata={"help": "threads | processes (of the torch loader: more images a second on many cores)"},
    )
    on_bad_record: str = field(
        default="error", metadata={"help": "error | skip (another image takes the place of one that cannot be read)"}
    )
    bad_share: float = field(
        default=0.001, metadata={"help": "share of the images that may be skipped by a rank; more are an error"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.on_bad_record not in POLICIES:
            raise ConfigError(
                f"data.loader.on_bad_record: {self.on_bad_record!r}: must be one of {', '.join(POLICIES)}"
            )
        if not 0 <= self.bad_share <= 1:
            raise ConfigError(f"data.loader.bad_share: {self.bad_share}: must be in [0, 1]")
        if self.kind not in LOADERS:
            raise ConfigError(f"data.loader.kind: {self.kind!r}: must be one of {', '.join(LOADERS)}")
        if self.workers_are not in WORKERS:
            raise ConfigError(f"data.loader.workers_are: {self.workers_are!r}: must be one of {', '.join(WORKERS)}")
        if (self.kind, self.workers_are) == ("dali", "processes"):
            raise ConfigError(
                "data.loader.workers_are: 'processes', but dali has threads: data.loader.kind=torch has them"
            )
        if self.workers < 1:
            raise ConfigError(f"data.loader.workers: {self.workers}: must be at least 1")
        if self.prefetch < 0:
            raise ConfigError(f"data.loader.prefetch: {self.prefetch}: must be 0 or above")


class TorchLoader:
    """A rank's batches of a run: what is in the batch of a step depends on the seeds and the step alone.

    Args:
        dataset: the images; each must have ``image_size``.
        order: which sample is where in the run.
        augment: what is done to each.
        global_batch_size: rows of all ranks in a step.
        rank: this one's.
        world_size: how many share the rows.
        image_size: (height, width) of every image of the data set.
        config: threads and prefetching.
        device: where the batches will be used; for a GPU they are made in memory that it copies from while it computes.
        size_at: the side in pixels that a step's images are made in; None for the data's own size throughout.

    Raises:
        ConfigError: no threads, or ranks that cannot share the rows equally.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        augment: Augment,
        global_batch_size: int,
        rank: int,
        world_size: int,
        image_size: tuple[int, int],
        config: LoaderConfig,
        device: "torch.device | str" = "cpu",
        size_at: "Callable[[int], int] | None" = None,
    ) -> None:
        config.validate()
        rows_of_step(0, global_batch_size, rank, world_size)
        self.dataset = dataset
        self.order = order
        self.augment = augment
        self.global_batch_size = global_batch_size
        self.rank = rank
        self.world_size = world_size
        self.image_size = image_size
        self.config = config
        self.device = torch.device(device)
        self.size_at = size_at
        self.bad_records = BadRecords(config.on_bad_record == "skip", config.bad_share, order)
        cv2.setNumThreads(0)  # OpenCV's own threads would compete with ours for the same cores

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Yield this rank's batches of the steps ``[first_step, last_step)``, made up to ``prefetch`` ahead.

        Leaving the iterator early, by any way, stops the workers.

        Raises:
            DataError: a sample cannot be read, or is not what it should be; raised in place of its batch. Or a worker
                process ended by itself.
        """
        filler = RowFiller(self.dataset, self.augment, self.bad_records, self.image_size)
        makers = (_Processes if self.config.workers_are == "processes" else _Threads)(filler, self.config, self.device)
        pending: deque[Callable[[], Batch]] = deque()
        try:
            for rows in self._rows(first_step, last_step):
                pending.append(makers.begin(rows))
                if len(pending) > self.config.prefetch:
                    yield pending.popleft()()
            while pending:
                yield pending.popleft()()
        finally:
            makers.stop()

    def _rows(self, first_step: int, last_step: int) -> "Generator[_Rows, None, None]":
        """Yield what is to be in this rank's batch of each of the steps."""
        together = max(1, _ORDERED_AT_ONCE * self.world_size // self.global_batch_size)
        for first in range(first_step, last_step, together):
            steps = range(first, min(first + together, last_step))
            ranges = [rows_of_step(step, self.global_batch_size, self.rank, self.world_size) for step in steps]
            positions = np.stack([np.arange(rows.start, rows.stop) for rows in ranges])
            samples = self.order.at(positions.reshape(-1)).reshape(positions.shape)
            for number, step in enumerate(steps):
                size = self.size_at(step) if self.size_at else None
                height, width = self.image_size if size is None else (size, size)
                yield _Rows(samples[number], positions[number], (positions.shape[1], height, width, 3))


@dataclass(frozen=True)
class _Rows:
    """What is to be in a batch: samples and their positions in the run, int64 ``[b]`` each; the images' shape."""

    samples: np.ndarray
    positions: np.ndarray
    shape: tuple[int, int, int, int]


class _Threads:
    """Threads that fill batches where these will stay."""

    def __init__(self, filler: RowFiller, config: LoaderConfig, device: torch.device) -> None:
        self._filler, self._config, self._pinned = filler, config, device.type == "cuda"
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="loader")

    def begin(self, rows: _Rows) -> Callable[[], Batch]:
        """Have a batch made; what is returned waits for it."""
        images = torch.empty(rows.shape, dtype=torch.uint8, pin_memory=self._pinned)
        labels = torch.empty(len(rows.samples), dtype=torch.int64, pin_memory=self._pinned)
        parts = (images.numpy(), labels.numpy(), rows.samples, rows.positions)
        tasks = [
            self._pool.submit(self._filler.fill, *(part[piece] for part in parts))
            for piece in _pieces(len(labels), self._config)
        ]

        def finished() -> Batch:
            for task in tasks:
                task.result()
            return Batch(images.permute(0, 3, 1, 2), labels)

        return finished

    def stop(self) -> None:
        """Stop the threads, which finish the images that they are at."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Processes:
    """Processes that fill batches elsewhere, from where these are copied."""

    def __init__(self, filler: RowFiller, config: LoaderConfig, device: torch.device) -> None:
        self._config, self._pinned = config, device.type == "cuda"
        self._workers = WorkerProcesses(filler, config.workers)

    def begin(self, rows: _Rows) -> Callable[[], Batch]:
        """Have a batch made; what is returned waits for it."""
        pieces = _pieces(len(rows.samples), self._config)
        copy_out = self._workers.begin(rows.samples, rows.positions, rows.shape, pieces)

        def finished() -> Batch:
            images = torch.empty(rows.shape, dtype=torch.uint8, pin_memory=self._pinned)
            labels = torch.empty(len(rows.samples), dtype=torch.int64, pin_memory=self._pinned)
            copy_out(images.numpy(), labels.numpy())
            return Batch(images.permute(0, 3, 1, 2), labels)

        return finished

    def stop(self) -> None:
        """End the processes, whatever they are at."""
        self._workers.stop()


def _pieces(rows: int, config: LoaderConfig) -> list[slice]:
    """Return the tasks that a batch is cut into: few, but two for each worker in all that are made ahead."""
    enough = -(-2 * config.workers // (config.prefetch + 1))
    tasks = max(-(-rows // _MOST_ROWS), min(enough, rows // _LEAST_ROWS), 1)
    return [slice(task * rows // tasks, (task + 1) * rows // tasks) for task in range(tasks)]


def _normalized(images: Tensor) -> Tensor:
    """Return uint8 ``[b, 3, H, W]`` as float32 in [-1, 1], looked up: one pass, where arithmetic takes three."""
    normalized = torch.empty_like(images, dtype=torch.float32)
    pixels, floats = (tensor.permute(0, 2, 3, 1).view(len(images), -1).numpy() for tensor in (images, normalized))
    cv2.LUT(pixels, _FLOATS, dst=floats)
    return normalized
