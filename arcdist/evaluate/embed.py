"""Embeddings of images, made on all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from arcdist.data.decode import decode
from arcdist.errors import DataError
from arcdist.runtime.collectives import broadcast_object, gather_uneven_rows, rank, world_size
from arcdist.runtime.ordered import map_in_order
from arcdist.runtime.precision import autocast

DECODE_THREADS = 2
BATCHES_AHEAD = 4  # decoded while the net works; bounds the decoded images that are held

Item = TypeVar("Item")


def embed(
    model: nn.Module,
    images: Sequence[bytes],
    *,
    device: torch.device,
    batch_size: int,
    flip: bool = True,
    image_size: int = 112,
    precision: str = "fp32",
    name: str = "images",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the embeddings of all images on every rank, ``[N, D]`` float32 on the CPU, un-normalised, in order.

    With ``flip``, ``e(img) + e(flip(img))``: summed before any normalisation, as insightface does.

    Ranks take whole batches, contiguous and as even as may be; so each batch holds the same images on any number of
    ranks, and the result is that of one rank. Equal images are embedded once.

    Args:
        model: ``[b, 3, S, S]`` in [-1, 1] to ``[b, D]``; the bare network, not wrapped in DDP, since ranks may run
            different numbers of batches. It runs in eval mode; each of its modules is put back in the mode it had.
        images: encoded images, the same sequence on every rank.
        batch_size: images in one forward pass of one rank.
        image_size: side of the square that the net takes; larger and smaller squares are resized, bicubic as mxnet
            does in insightface's evaluation.
        precision: "fp32", "bf16" or "fp16", what the net computes in.
        name: what errors call the sequence.
        progress: called with the number of images that this rank has just finished.

    Raises DataError for an empty sequence and for an image that cannot be decoded or is of another shape.
    Communication: one gather of the distinct images' embeddings.
    """
    if not images:
        raise DataError(f"{name}: there are no images to embed")
    row_of: dict[bytes, int] = {}
    rows = torch.tensor([row_of.setdefault(image, len(row_of)) for image in images])
    first_use = np.unique(rows.numpy(), return_index=True)[1].tolist()
    batches = [first_use[start : start + batch_size] for start in range(0, len(first_use), batch_size)]
    mine = np.array_split(np.arange(len(batches)), world_size())[rank()]  # rank 0 always has a batch

    def load(batch: list[int]) -> Tensor:
        return torch.from_numpy(np.stack([square_pixels(images[i], f"{name}: image {i}", image_size) for i in batch]))

    parts = []
    with evaluating(model, precision, device):
        for part in embed_batches(model, load, (batches[index] for index in mine), device=device, flip=flip):
            parts.append(part)
            if progress is not None:
                progress(len(part))
    dim = broadcast_object(parts[0].shape[1] if parts else None)
    embeddings = torch.cat(parts) if parts else torch.empty(0, dim, device=device)
    return gather_uneven_rows(embeddings).cpu()[rows]


def embed_batches(
    model: nn.Module,
    load: Callable[[Item], Tensor],
    batches: Iterable[Item],
    *,
    device: torch.device,
    flip: bool,
) -> Iterator[Tensor]:
    """Yield the embeddings of each batch, ``[b, D]`` float32 on the device, while threads load the next ones.

    To be used within ``evaluating``. ``load`` gives a batch's pixels, ``[b, S, S, 3]`` uint8.
    """
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        for pixels in map_in_order(pool, load, batches, BATCHES_AHEAD + 1):
            yield _forward(model, pixels.to(device, non_blocking=True), flip)


def square_pixels(image: bytes, name: str, size: int) -> np.ndarray:
    """Return the pixels of a square image, resized where it is of another size: uint8 ``[size, size, 3]`` RGB.

    Errors: DataError, with the image's name, where it cannot be decoded or is not square.
    """
    pixels = decode(image, name)
    height, width = pixels.shape[:2]
    if height != width:
        raise DataError(
            f"{name} is {width}×{height} px, not square: faces are aligned first, to {size}×{size} px; a resize would "
            "distort them"
        )
    return pixels if width == size else cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)


def _forward(model: nn.Module, pixels: Tensor, flip: bool) -> Tensor:
    """Return ``[b, D]`` float32 for ``[b, H, W, 3]`` uint8."""
    # Permuting images that lie row by row is torch's channels_last, which convolutions are fastest in.
    batch = pixels.permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    embedding = model(batch).float()
    return embedding + model(batch.flip(3)).float() if flip else embedding


@contextlib.contextmanager
def evaluating(model: nn.Module, precision: str, device: torch.device) -> Generator[None]:
    """Run the block in inference mode and in a precision, the model in eval mode; its modules get their modes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(), autocast(precision, device, several=True):
            yield
    finally:
        for module, training in modes:
            module.training = training
