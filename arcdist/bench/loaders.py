"""Ways to feed a trainer from a .rec: our loaders, a plain DataLoader, and decoding alone, the most there can be."""

import io
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.dali_loader import DaliLoader
from arcdist.data.datasets import RecordDataset
from arcdist.data.order import Order
from arcdist.data.torch_loader import LoaderConfig, TorchLoader

_SEED = 0
_PREFETCH = 4
_FOREVER = 1 << 40
BATCHES = 64
"""Of different images, as many as a set has and at most; then they come again."""

Batches = Generator[object, None, None]


@dataclass(frozen=True)
class Feed:
    """What is fed, and with how many threads or processes."""

    path: str
    batch_size: int
    threads: int

    def images(self, dataset: RecordDataset) -> int:
        """Return how many of the images are used."""
        return min(len(dataset), BATCHES * self.batch_size)


def decoding_alone(feed: Feed) -> Batches:
    """Yield for each batch that libjpeg-turbo has decoded, from memory and into pixels that nobody keeps."""
    dataset = RecordDataset(feed.path)
    payloads = [dataset.read(sample)[1] for sample in range(feed.images(dataset))]
    shape = (*dataset.image_size, 3)
    dataset.close()

    def decode(samples: range) -> None:
        pixels = np.empty(shape, np.uint8)
        for sample in samples:
            simplejpeg.decode_jpeg(payloads[sample % len(payloads)], "RGB", buffer=pixels)

    each = -(-feed.batch_size // feed.threads)
    pending: deque[list[Future[None]]] = deque()
    with ThreadPoolExecutor(feed.threads) as pool:
        for start in range(0, _FOREVER, feed.batch_size):
            end = start + feed.batch_size
            parts = [range(first, min(first + each, end)) for first in range(start, end, each)]
            pending.append([pool.submit(decode, part) for part in parts])
            if len(pending) > _PREFETCH:
                yield [task.result() for task in pending.popleft()]


def ours(
    feed: Feed, kind: type[TorchLoader], augment: AugmentConfig, workers_are: str = "threads", for_cpu: bool = True
) -> Batches:
    """Yield the images of a loader of ours: float32 in [-1, 1] as a CPU trains on them, or bytes as a GPU gets them."""
    dataset = RecordDataset(feed.path)
    order = Order(feed.images(dataset), _SEED)
    loader = kind(
        *(dataset, order, Augment(augment, _SEED), feed.batch_size, 0, 1, dataset.image_size),
        LoaderConfig(feed.threads, _PREFETCH, workers_are=workers_are),
    )
    with closing(loader.batches(0, _FOREVER)) as batches:
        for batch in batches:
            yield batch.to("cpu").images if for_cpu else batch.images


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """What most trainers of the field do for each sample: Pillow, a coin, ``ToTensor``, ``Normalize``."""

    def __init__(self, path: str) -> None:
        self.images = RecordDataset(path)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a normalized image, float32 ``[3, H, W]``, and its label."""
        label, payload = self.images.read(index)
        image = Image.open(io.BytesIO(payload)).convert("RGB")
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div_(255).sub_(0.5).div_(0.5), label


def plain(feed: Feed) -> Batches:
    """Yield images and labels of a torch DataLoader with worker processes."""
    dataset = PlainDataset(feed.path)
    sampler = RandomSampler(range(feed.images(dataset.images)), replacement=True, num_samples=_FOREVER)
    yield from DataLoader(
        dataset, feed.batch_size, sampler=sampler, num_workers=feed.threads, multiprocessing_context="forkserver"
    )


RECIPE = AugmentConfig(
    **{"rotation_deg": 10, "shift_px": 4, "zoom": 0.1, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    **{"blur": 0.1, "resize": 0.2, "occlusion": 0.2},
)
"""Everything that a heavy recipe does to a face."""

METHODS: dict[str, Callable[[Feed], Batches]] = {
    "decoding alone": decoding_alone,
    "torch": lambda feed: ours(feed, TorchLoader, AugmentConfig()),
    "torch, processes": lambda feed: ours(feed, TorchLoader, AugmentConfig(), "processes"),
    "torch, bytes": lambda feed: ours(feed, TorchLoader, AugmentConfig(), for_cpu=False),
    "torch, processes, bytes": lambda feed: ours(feed, TorchLoader, AugmentConfig(), "processes", for_cpu=False),
    "dali": lambda feed: ours(feed, DaliLoader, AugmentConfig()),
    "torch, augmented": lambda feed: ours(feed, TorchLoader, RECIPE),
    "plain DataLoader": plain,
}
