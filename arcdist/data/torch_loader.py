"""Batches, decoded and augmented by threads into the batch's own memory.

libjpeg-turbo and OpenCV let go of the interpreter while they work, so threads are enough: there are no worker
processes, no pickling, no tensor for each sample and no collating.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from arcdist.data.augment import Augment
from arcdist.data.bad_records import BadRecords
from arcdist.data.decode import decode, decode_into
from arcdist.data.order import Order, rows_of_step
from arcdist.errors import ConfigError

_CHUNK = (
    64  # Rows that one task of a thread fills. Tasks of one row would spend a third of the time on being handed out.
)


_FLOATS = (np.arange(256, dtype=np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)


class Dataset(Protocol):
    """Encoded images by sample; threads read it at the same time."""

    def read(self, sample: int, /) -> tuple[int, bytes]:
        """Return the label, a global class id, and the encoded image."""
        ...

    def name(self, sample: int, /) -> str:
        """Return words for messages."""
        ...


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


@dataclass
class LoaderConfig:
    """How a rank's batches are made; changes their speed, never their content but for how a GPU rounds pixels.

    What is put in the place of a bad record depends on the seed and the position in the run alone.
    """

    workers: int = field(default=4, metadata={"help": "threads of a rank that decode and augment"})
    prefetch: int = field(default=4, metadata={"help": "batches that are made while one is trained on"})
    kind: str = field(default="auto", metadata={"help": "torch | dali | auto (dali on a GPU where it is installed)"})

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

        Leaving the iterator early, by any way, stops the threads.

        Raises:
            DataError: a sample cannot be read, or is not what it should be; raised in place of its batch.
        """
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="loader")
        pending: deque[_Pending] = deque()
        try:
            for step in range(first_step, last_step):
                pending.append(self._begin(pool, step))
                if len(pending) > self.config.prefetch:
                    yield pending.popleft().batch()
            while pending:
                yield pending.popleft().batch()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, step: int) -> "_Pending":
        rows = rows_of_step(step, self.global_batch_size, self.rank, self.world_size)
        size = self.size_at(step) if self.size_at else None
        height, width = self.image_size if size is None else (size, size)
        pinned = self.device.type == "cuda"
        images = torch.empty((len(rows), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(rows), dtype=torch.int64, pin_memory=pinned)
        tasks = []
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            tasks.append(pool.submit(self._fill, images[chunk].numpy(), labels[chunk].numpy(), rows[chunk], size))
        return _Pending(images, labels, tasks)

    def _fill(self, images: np.ndarray, labels: np.ndarray, positions: range, size: "int | None") -> None:
        """Write the images and labels at these positions of the run."""
        samples = self.order.samples(positions.start, positions.stop)
        parameters = self.augment.draw(np.asarray(positions))
        in_place = self.augment.only_flips and images.shape[1:3] == tuple(self.image_size)

        def fill(row: int, sample: int) -> None:
            labels[row], payload = self.dataset.read(sample)
            if in_place:
                decode_into(images[row], payload, partial(self.dataset.name, sample))
            else:
                image = decode(payload, self.dataset.name(sample), self.image_size)
                images[row] = self.augment.apply(image, parameters[row], size)

        for row, sample in enumerate(samples.tolist()):
            self.bad_records.replace(partial(fill, row), sample, positions[row])
        if in_place:
            for row in np.flatnonzero(parameters["flip"]):
                cv2.flip(images[row], 1, dst=images[row])


def _normalized(images: Tensor) -> Tensor:
    """Return uint8 ``[b, 3, H, W]`` as float32 in [-1, 1], looked up: one pass, where arithmetic takes three."""
    normalized = torch.empty_like(images, dtype=torch.float32)
    pixels, floats = (tensor.permute(0, 2, 3, 1).view(len(images), -1).numpy() for tensor in (images, normalized))
    cv2.LUT(pixels, _FLOATS, dst=floats)
    return normalized


@dataclass(frozen=True)
class _Pending:
    """A batch that threads are filling."""

    images: Tensor
    labels: Tensor
    tasks: "list[Future[None]]"

    def batch(self) -> Batch:
        for task in self.tasks:
            task.result()
        return Batch(self.images.permute(0, 3, 1, 2), self.labels)
