"""Batches decoded by NVIDIA DALI: on the GPU that trains, or by DALI's threads.

DALI decodes and flips, nothing else. Which samples it gets, and which of them are flipped, is computed here from the
step, and it is fed encoded bytes. So there is no reader of DALI's, no shuffling buffer and no epoch, and nothing of
DALI's needs to be in a checkpoint.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from arcdist.data.decode import check_header, decode
from arcdist.data.order import rows_of_step
from arcdist.data.torch_loader import Batch, TorchLoader
from arcdist.errors import DataError

T = TypeVar("T")
Made = TypeVar("Made")


def has_dali() -> bool:
    """Return whether nvidia-dali is there to be imported, without importing it, which takes seconds."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # nothing of NVIDIA's is installed
        return False


class DaliLoader(TorchLoader):
    """The batches of `TorchLoader`, from the same arguments: the same rows, labels, flips and sizes.

    For a GPU the images are decoded on it, by nvJPEG, and never leave it. Its pixels are those of libjpeg-turbo but
    for rounding. For a CPU, and wherever an image is more than flipped, DALI decodes in its own threads, and the pixels
    are the same bit for bit (of a CMYK JPEG, to one level); what is more than a flip is done by `Augment`, in ours.

    DALI decodes much that is damaged, and says nothing. So on its first visit after a start an image is decoded here
    too, before DALI gets it, and what `TorchLoader` refuses is refused; later, only headers are looked at (memory: a
    byte an image). Where bad records are skipped, every image is decoded here first, always.
    """

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Yield this rank's batches of the steps ``[first_step, last_step)``, made up to ``prefetch`` ahead.

        Leaving the iterator early, by any way, stops the threads.

        Raises:
            DataError: a sample cannot be read, or is not what it should be; raised in place of its batch.
        """
        read = partial(self._read, np.zeros(self.order.size, np.bool_))
        for finished_by_dali, steps in groupby(range(first_step, last_step), self._finished_by_dali):
            pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="loader")
            try:
                decoded = self._decode(_ahead(pool, read, steps, self.config.prefetch), finished_by_dali)
                if finished_by_dali:
                    for rows, images in decoded:
                        yield Batch(images.permute(0, 3, 1, 2), rows.labels)
                else:
                    for batch in _ahead(pool, self._augment, decoded, self.config.prefetch):
                        yield batch.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _finished_by_dali(self, step: int) -> bool:
        """Return whether nothing is left to be done to a step's images once they are decoded and flipped."""
        same_size = self.size_at is None or (self.size_at(step), self.size_at(step)) == self.image_size
        return same_size and self.augment.only_flips

    def _read(self, checked: np.ndarray, step: int) -> "_Rows":
        """Return what is fed for a step; ``checked``, bool ``[n]``, are the images that were decoded once to check."""
        positions = rows_of_step(step, self.global_batch_size, self.rank, self.world_size)
        samples = self.order.samples(positions.start, positions.stop).tolist()
        labels = torch.empty(len(samples), dtype=torch.int64, pin_memory=self.device.type == "cuda")
        encoded: list[np.ndarray] = []

        def take(row: int, sample: int) -> None:
            labels[row], payload = self.dataset.read(sample)
            check = check_header if checked[sample] and not self.bad_records.skips else decode
            check(payload, self.dataset.name(sample), self.image_size)
            checked[sample] = True
            encoded.append(np.frombuffer(payload, np.uint8))

        for row, sample in enumerate(samples):
            self.bad_records.replace(partial(take, row), sample, positions[row])
        return _Rows(step, samples, labels, encoded, self.augment.draw(np.asarray(positions)))

    def _decode(self, reads: Iterator["Future[_Rows]"], flip: bool) -> Generator[tuple["_Rows", Tensor], None, None]:
        """Yield what was read with its images, uint8 ``[b, H, W, 3]``, flipped where that is asked for.

        They are on the device where they are flipped, else on the CPU.
        """
        decoding: deque[Future[_Rows]] = deque()

        def feed() -> tuple[list[np.ndarray], np.ndarray]:
            read = next(reads)
            decoding.append(read)
            if read.exception():
                raise StopIteration  # for DALI: what it has been given is finished, and then the error is raised
            rows = read.result()
            return rows.encoded, (rows.parameters["flip"] & flip).astype(np.int32)

        on_gpu = flip and self.device.type == "cuda"
        pipeline = self._pipeline(feed, on_gpu)
        stream = torch.cuda.current_stream(self.device) if on_gpu else None
        while True:
            try:
                (images,) = pipeline.run(stream)
            except StopIteration:
                break
            except RuntimeError as error:
                raise self._find_damaged(decoding.popleft().result(), error) from error
            yield decoding.popleft().result(), torch.from_dlpack(images.as_tensor())
        for failed in decoding:
            failed.result()

    def _pipeline(self, feed: Callable[[], tuple[list[np.ndarray], np.ndarray]], on_gpu: bool) -> Any:
        """Return a pipeline from what ``feed`` gives, batch by batch, to images."""
        from nvidia.dali import Pipeline, fn

        pipeline = Pipeline(
            batch_size=self.global_batch_size // self.world_size,
            num_threads=self.config.workers,
            device_id=torch.cuda.device(self.device).idx if on_gpu else None,
            prefetch_queue_depth=max(1, self.config.prefetch),
            exec_dynamic=True,  # what it gives away is ours: it does not write there again
        )
        with pipeline:
            encoded, flip = fn.external_source(feed, num_outputs=2)
            images = fn.decoders.image(
                encoded,
                device="mixed" if on_gpu else "cpu",
                adjust_orientation=False,
                jpeg_fancy_upsampling=True,  # as libjpeg's default
                hw_decoder_load=0.0,  # one decoder for all, else the pixels would depend on the place in the batch
            )
            pipeline.set_outputs(fn.flip(images, horizontal=flip))
        pipeline.build()
        return pipeline

    def _find_damaged(self, rows: "_Rows", error: RuntimeError) -> DataError:
        """Return an error that names the image that DALI could not decode; it does not say itself which."""
        for sample, encoded in zip(rows.samples, rows.encoded):
            try:
                decode(encoded.tobytes(), self.dataset.name(sample), self.image_size)
            except DataError as damage:
                return damage
        return DataError(f"the batch of step {rows.step}: DALI cannot decode it, data.loader.kind=torch can: {error}")

    def _augment(self, decoded: tuple["_Rows", Tensor]) -> Batch:
        rows, images = decoded
        size = self.size_at(rows.step) if self.size_at else None
        height, width = self.image_size if size is None else (size, size)
        shape = (len(images), height, width, 3)
        augmented = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for row, image in enumerate(images.numpy()):
            augmented.numpy()[row] = self.augment.apply(image, rows.parameters[row], size)
        return Batch(augmented.permute(0, 3, 1, 2), rows.labels)


@dataclass(frozen=True)
class _Rows:
    """What is read for this rank's rows of a step."""

    step: int
    samples: list[int]
    labels: Tensor
    encoded: list[np.ndarray]
    parameters: np.ndarray


def _ahead(
    pool: ThreadPoolExecutor, make: Callable[[T], Made], items: Iterable[T], ahead: int
) -> "Generator[Future[Made], None, None]":
    """Yield what threads make of each item, in order and begun up to ``ahead`` before it is asked for."""
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > ahead:
                yield pending.popleft()
    except DataError:  # of the next item: those before it come first
        yield from pending
        raise
    yield from pending
