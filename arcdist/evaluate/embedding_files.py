"""Embeddings of a list of images as a file, made on all ranks; what a killed run has made is not made again."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor, nn

from arcdist.data.decode import check_header
from arcdist.data.image_lists import ImageList
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embed import embed_batches, evaluating, square_pixels
from arcdist.runtime.collectives import barrier, broadcast_object, from_rank_0, rank, world_size

SUFFIXES = (".npy", ".safetensors")
_BLOCKS = 256  # as many files as a small list is made of, so that many ranks have something to do
_MOST_BATCHES = 8  # in a block, so that a kill costs little and ranks wait for each other briefly


@dataclass(frozen=True)
class EmbeddingSettings:
    """What the embeddings are made with; the values of each key change the file."""

    batch_size: int = 128
    """Images in one forward pass."""
    flip: bool = True
    """Whether ``e(img) + e(flip(img))`` is taken, as in verification."""
    image_size: int = 112
    """Side in pixels of the square that the net takes."""
    resize: bool = False
    """Whether squares of another size are resized (bicubic); otherwise they are refused."""
    precision: str = "fp32"
    """"fp32", "bf16" or "fp16", what the net computes in."""


def check_output(path: Path) -> None:
    """Raise ConfigError where a file of embeddings cannot have that name."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"output: {str(path)!r}: must end in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ConfigError(f"output: {str(path)!r}: is a folder")


def write_embeddings(
    model: nn.Module,
    images: ImageList,
    output: Path,
    settings: EmbeddingSettings,
    *,
    device: torch.device,
    progress: Callable[[int], None] = lambda images: None,
) -> tuple[int, int]:
    """Write OUT.npy or OUT.safetensors (key ``embeddings``) and OUT.tsv; return ``(N, D)`` on every rank.

    The embeddings are ``[N, D]`` float32, un-normalised, in the order of the list; the index has a header and one line
    a row, ``name<TAB>label``. The list is cut into blocks of whole batches that do not depend on the number of ranks,
    and so neither does the file. Ranks take turns at the blocks that are not there yet; each is written whole into
    OUT.partial, under a name made of the weights, the settings and its images' names and stamps, so that a later call
    takes only what it would have made itself. Rank 0 then joins the blocks, and OUT.partial goes; OUT.npy is there
    whole or not at all.

    Args:
        model: ``[b, 3, S, S]`` in [-1, 1] to ``[b, D]``, on ``device``; the bare network, not wrapped in DDP.
        images: the same list on every rank.
        output: in a folder that all ranks share.
        progress: called on every rank with the number of images that all ranks have just finished or found made.

    Errors: ConfigError for another suffix; DataError, on the rank that meets it, for an image that cannot be read, is
        not square or, without ``resize``, of another size, and for a folder that cannot be written or is not shared.
    Cost: on rank 0 a hash of the weights and, of a folder, one ``stat`` an image; twice the disk space of the file.
        A .safetensors is joined in memory, a .npy on disk.
    Communication: one barrier a round of blocks.
    """
    check_output(output)
    blocks = _blocks(len(images.names), settings.batch_size)
    work = output.with_name(f"{output.name}.partial")
    paths, made = from_rank_0(lambda: _look(model, images, blocks, work, settings))
    if broadcast_object(_names_hash(images)) != _names_hash(images):
        raise DataError("the ranks see different lists of images; is the input the same on every node?")
    progress(sum(len(blocks[block]) for block in made))
    missing = sorted(set(range(len(blocks))) - made)
    rounds = [missing[start : start + world_size()] for start in range(0, len(missing), world_size())]
    mine = [turn[rank()] for turn in rounds if rank() < len(turn)]

    def load(batch: range) -> Tensor:
        return torch.from_numpy(np.stack([_pixels(images, image, settings) for image in batch]))

    with evaluating(model, settings.precision, device):
        batches = (batch for block in mine for batch in _batches(blocks[block], settings.batch_size))
        embedded = embed_batches(model, load, batches, device=device, flip=settings.flip)
        for turn in rounds:
            if rank() < len(turn):
                block = turn[rank()]
                parts = [next(embedded).cpu() for _ in _batches(blocks[block], settings.batch_size)]
                _save(paths[block], torch.cat(parts).numpy())
            barrier()
            progress(sum(len(blocks[block]) for block in turn))
    return from_rank_0(lambda: _join(images, output, paths, work))


def _blocks(count: int, batch_size: int) -> list[range]:
    batches = math.ceil(count / batch_size)
    size = batch_size * min(max(batches // _BLOCKS, 1), _MOST_BATCHES)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _batches(block: range, batch_size: int) -> Iterator[range]:
    return (block[start : start + batch_size] for start in range(0, len(block), batch_size))


def _look(
    model: nn.Module, images: ImageList, blocks: list[range], work: Path, settings: EmbeddingSettings
) -> tuple[list[Path], set[int]]:
    """Return the path of each block, and which blocks are there."""
    what = hashlib.sha256(repr(settings).encode())
    for name, tensor in model.state_dict().items():
        what.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        what.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    paths = []
    for block in blocks:
        own = what.copy()
        for image in block:
            own.update(f"{images.names[image]}\t{images.stamp(image)}\n".encode(errors="surrogateescape"))
        paths.append(work / f"{own.hexdigest()[:32]}.npy")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{work}: cannot be written: {error.strerror}") from None
    return paths, {number for number, path in enumerate(paths) if path.exists()}


def _names_hash(images: ImageList) -> str:
    names = "\n".join(images.names)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()


def _pixels(images: ImageList, image: int, settings: EmbeddingSettings) -> np.ndarray:
    payload, where, side = images.read(image), images.where(image), settings.image_size
    if not settings.resize:
        height, width = check_header(payload, where)
        if (height, width) != (side, side):
            raise DataError(
                f"{where}: is {width}×{height} px, not {side}×{side}: `arcdist align` finds faces and warps them to "
                "that; faces that are aligned, but of another size, are taken with resize=true"
            )
    return square_pixels(payload, where, side)


def _save(path: Path, rows: np.ndarray) -> None:
    aside = path.with_suffix(f".{os.getpid()}.aside")
    try:
        with open(aside, "wb") as file:
            np.save(file, rows)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _join(images: ImageList, output: Path, paths: list[Path], work: Path) -> tuple[int, int]:
    """Write the whole file and the index, aside first; return the file's shape."""
    for path in paths:
        if not path.exists():
            raise DataError(
                f"{path}: another rank wrote it, but it is not here: is {output.parent} shared by all nodes?"
            )
    index, index_aside, aside = output.with_suffix(".tsv"), work / "index.aside", work / "embeddings.aside"
    shape = (len(images.names), np.load(paths[0], mmap_mode="r").shape[1])
    try:
        with open(index_aside, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            lines.write("name\tlabel\n")
            lines.writelines(f"{name}\t{label}\n" for name, label in zip(images.names, images.labels(), strict=True))
        if output.suffix == ".npy":
            header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
            with open(aside, "wb") as file:  # not mapped: a page that a full disk has no room for ends the process
                np.lib.format.write_array_header_1_0(file, header)
                for path in paths:
                    file.write(np.load(path).astype(np.float32, copy=False).data)
                file.flush()
                os.fsync(file.fileno())
        else:
            save_file({"embeddings": np.concatenate([np.load(path) for path in paths])}, aside)
        index_aside.replace(index)
        aside.replace(output)
        shutil.rmtree(work)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{output}: cannot be written: {error}") from None
    return shape
