"""``margin_logsumexp`` in Triton: every logit is made, used and forgotten on the chip. Plain functions, no autograd.

Each kernel holds one tile for as long as it runs and streams the other side past it, so what is streamed decides the
traffic between L2 and the multiprocessors. With D = 512 and bf16 products on Hopper:

* ``forward`` holds 128 classes, read from device memory once and rounded once, and streams embeddings, which are
  rounded before: 128 flops a byte. To hold rows and stream fp32 centers instead would give 64, and round every center
  again for each tile of rows. The price is a maximum and a sum for each row and tile, 1/64 of the logits.
* ``centers_gradient`` holds 64 classes, their ``[64, D]`` sums in registers (128 a thread), and streams embeddings for
  both of its products: 128 flops a byte.
* ``embedding_gradient`` holds 64 rows and their sums and streams classes, for both products too: 64 flops a byte with
  fp32 centers, which L2 bounds, 128 with bf16 centers. Its ranges of classes are added up as partial sums of at most
  two waves of tiles, not by atomics: the result has the same bits each time.

The other tiles hold half as much, which an A100's ratio of arithmetic to L2 still bears. Either gradient makes the
logits once more: five products in all.

Tiles are cut along D into chunks, each a tensor of its own, so that a conversion from fp32, or the last pass over the
sums, holds one chunk in registers; centers that are needed at the end again are read again. Of the ways tried these
neither spill nor make the tensor cores wait for each instruction: the tests compile them and look.
"""

from typing import Any, Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

Products = Literal["fp32", "tf32", "bf16"]


class Tile(NamedTuple):
    """The sizes of one kernel: rows of embeddings, classes, a chunk of D, stages of the pipeline, warps."""

    rows: int
    classes: int
    chunk: int = 128
    stages: int = 2
    warps: int = 8


# By kernel and products: for Hopper's 227 KiB of shared memory and wgmma, and for the 99 KiB of all others since sm_80.
_TILES: dict[tuple[str, Products], tuple[Tile, Tile]] = {
    ("forward", "bf16"): (Tile(32, 128), Tile(32, 64)),
    ("forward", "tf32"): (Tile(16, 64), Tile(16, 32)),
    ("forward", "fp32"): (Tile(16, 64), Tile(16, 32)),
    ("embedding_gradient", "bf16"): (Tile(64, 32), Tile(32, 16)),
    ("embedding_gradient", "tf32"): (Tile(32, 16), Tile(16, 16)),
    ("embedding_gradient", "fp32"): (Tile(32, 16), Tile(16, 16)),
    ("centers_gradient", "bf16"): (Tile(32, 64, chunk=64), Tile(32, 32)),
    ("centers_gradient", "tf32"): (Tile(16, 32), Tile(16, 16)),
    ("centers_gradient", "fp32"): (Tile(16, 32), Tile(16, 16)),
}
_PARTIALS = 2**22  # the most pairs of a maximum and a sum that one launch of forward writes: 32 MiB
_LOWEST = tl.constexpr(-3e38)  # where a row has no negative: finite, so that no difference is NaN


def forward(
    embedding: Tensor,
    centers: Tensor,
    inverse_norm: Tensor | None,
    target: Tensor,
    scale: float,
    products: Products,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``log Σ_{j ≠ target} exp(scale · cosine_j)`` and the cosine to the own center, both ``[B]`` fp32.

    Args:
        embedding: ``[B, D]``; fp32, bf16 or fp16; D a multiple of 16.
        centers: ``[S, D]``, raw rows; fp32 or bf16; contiguous.
        inverse_norm: ``[S]`` fp32, what each center is multiplied by; None takes the centers as they are.
        target: ``[B]`` int64, the own class among these S; −1 where another rank holds it: the cosine is then 0.
        scale: multiplies every cosine.
        products: how operands enter a product: as fp32, as tf32, or rounded to bf16; sums are fp32. The cosine to the
            own center is fp32 whatever this says.
        tile: sizes; by default what was found to suit the device.

    The log-sum-exp is −∞ where a row has no negatives. Memory: at most 64 MiB of partial results.
    """
    B, S = len(embedding), len(centers)
    tile = tile or _tile("forward", products, embedding)
    total = torch.zeros(B, device=embedding.device)
    largest = torch.full_like(total, _LOWEST.value)
    if B == 0 or S == 0:
        return largest + total.log(), total
    columns = target.int()
    operand = _operand(embedding, products)
    step = tile.classes * max(1, _PARTIALS // B)
    for start in range(0, S, step):
        stop = min(S, start + step)
        tiles = triton.cdiv(stop - start, tile.classes)
        # A few classes alone do not fill a GPU: rows are then parted too.
        parts = min(triton.cdiv(B, tile.rows), triton.cdiv(2 * _multiprocessors(embedding), tiles))
        rows_each = triton.cdiv(triton.cdiv(B, parts), tile.rows) * tile.rows
        partial = torch.empty((2, tiles, B), device=embedding.device)
        _forward[tiles, triton.cdiv(B, rows_each)](
            operand, centers, inverse_norm, columns, partial, B, start, stop, rows_each,
            scale, **_constants(tile, centers.shape[1], products),
        )  # fmt: skip
        before, largest = largest, torch.maximum(largest, partial[0].amax(0))
        total = total * (before - largest).exp() + partial[1].mul_(partial[0].sub_(largest).exp_()).sum(0)
    own = _own_centers(centers, inverse_norm, target)
    return largest + total.log(), (embedding.float() * own).sum(1)


def embedding_gradient(
    embedding: Tensor,
    centers: Tensor,
    inverse_norm: Tensor | None,
    target: Tensor,
    scale: float,
    lse: Tensor,
    lse_gradient: Tensor,
    cosine_gradient: Tensor,
    products: Products,
    tile: Tile | None = None,
) -> Tensor:
    """Return the gradient of the embeddings, ``[B, D]`` fp32.

    Arguments as for ``forward``, and, each ``[B]`` fp32: ``lse`` as ``forward`` returned it, its gradient, and that of
    the cosine, which counts only where ``target`` is not −1.

    The own center's part is added in fp32 whatever ``products`` says. Memory: partial sums of two waves of tiles, which
    is 34 MiB on a GPU of 132 multiprocessors.
    """
    (B, D), S = embedding.shape, len(centers)
    tile = tile or _tile("embedding_gradient", products, embedding)
    if B == 0 or S == 0:
        return torch.zeros((B, D), device=embedding.device)
    row_tiles = triton.cdiv(B, tile.rows)
    parts = max(1, min(2 * _multiprocessors(embedding) // row_tiles, triton.cdiv(S, tile.classes)))
    classes_each = triton.cdiv(triton.cdiv(S, parts), tile.classes) * tile.classes
    parts = triton.cdiv(S, classes_each)
    partial = torch.empty((parts, B, D), device=embedding.device)
    _embedding_gradient[row_tiles, parts](
        _operand(embedding, products), centers,
        partial, inverse_norm, target.int(), lse, lse_gradient * scale,
        B, S, classes_each, scale, **_constants(tile, D, products),
    )  # fmt: skip
    own = _own_centers(centers, inverse_norm, target)
    return partial.sum(0).addcmul_(own, cosine_gradient[:, None])


def centers_gradient(
    embedding: Tensor,
    centers: Tensor,
    inverse_norm: Tensor | None,
    target: Tensor,
    scale: float,
    lse: Tensor,
    lse_gradient: Tensor,
    cosine_gradient: Tensor,
    products: Products,
    start: int,
    stop: int,
    tile: Tile | None = None,
) -> Tensor:
    """Return the gradient of the raw centers ``start`` to ``stop``, ``[stop − start, D]`` fp32.

    Arguments as for ``embedding_gradient``. Where centers are normalized, the gradient is at right angles to its
    center, to fp32 rounding whatever ``products`` says.
    """
    B, D = embedding.shape
    tile = tile or _tile("centers_gradient", products, embedding)
    gradient = torch.empty((stop - start, D), device=embedding.device)
    if start == stop:
        return gradient
    if B == 0:
        return gradient.zero_()
    _centers_gradient[(triton.cdiv(stop - start, tile.classes),)](
        _operand(embedding, products), centers,
        gradient, inverse_norm, target.int(), lse, lse_gradient * scale,
        cosine_gradient, B, start, stop, scale, **_constants(tile, D, products),
    )  # fmt: skip
    return gradient


def _tile(kernel: str, products: Products, embedding: Tensor) -> Tile:
    hopper = embedding.is_cuda and torch.cuda.get_device_capability(embedding.device)[0] == 9
    tile = _TILES[kernel, products][0 if hopper else 1]
    D = embedding.shape[1]
    shrink = triton.cdiv(D, 512)
    return tile._replace(
        rows=max(16, triton.next_power_of_2(tile.rows // shrink)),
        classes=max(16, triton.next_power_of_2(tile.classes // shrink)),
        chunk=min(tile.chunk, triton.next_power_of_2(D)),
    )


def _constants(tile: Tile, D: int, products: Products) -> dict[str, Any]:
    # Triton's interpreter holds bf16 as integers and multiplies those.
    narrow = products == "bf16" and not knobs.runtime.interpret
    return {
        "D": D,
        "CHUNKS": triton.cdiv(D, tile.chunk),
        "CHUNK": tile.chunk,
        "ROWS": tile.rows,
        "CLASSES": tile.classes,
        "OPERAND": tl.bfloat16 if narrow else tl.float32,
        "PRECISION": "tf32" if products == "tf32" else "ieee",
        "num_stages": tile.stages,
        "num_warps": tile.warps,
    }


def _operand(embedding: Tensor, products: Products) -> Tensor:
    return embedding.to(torch.bfloat16 if products == "bf16" else torch.float32).contiguous()


def _multiprocessors(tensor: Tensor) -> int:
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count if tensor.is_cuda else 1


def _own_centers(centers: Tensor, inverse_norm: Tensor | None, target: Tensor) -> Tensor:
    """Return each row's own center, ``[B, D]`` fp32, as the cosine sees it; zeros where another rank holds it."""
    row = target.clamp_min(0)
    factor = (target >= 0).float() if inverse_norm is None else torch.where(target >= 0, inverse_norm[row], 0)
    return centers[row].float() * factor[:, None]


@triton.jit
def _load(matrix, first, stop, chunk, D: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, VOLATILE: tl.constexpr):
    """Return a chunk of a tile of rows, zero beyond row ``stop`` and column D.

    Volatile: read again where it is needed again, not kept in registers all the while.
    """
    row = tl.arange(0, ROWS)[:, None]
    column = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]
    inside = row < stop - first
    if D % CHUNK != 0:
        inside &= column < D
    pointer = matrix + tl.cast(first, tl.int64) * D + (row * D + column)
    return tl.load(pointer, mask=inside, other=0.0, volatile=VOLATILE)


@triton.jit
def _store(matrix, value, first, stop, chunk, D: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr):
    """Write a chunk of a tile of rows, but nothing beyond row ``stop`` and column D."""
    row = tl.arange(0, ROWS)[:, None]
    column = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]
    tl.store(
        matrix + tl.cast(first, tl.int64) * D + (row * D + column), value, mask=(row < stop - first) & (column < D)
    )


@triton.jit
def _load_inverse_norm(inverse_norm, column, stop):
    """Return what each class's center is multiplied by, zero beyond ``stop``."""
    if inverse_norm is None:
        return (column < stop).to(tl.float32)
    else:  # written out: Triton then compiles one of the two
        return tl.load(inverse_norm + column, mask=column < stop, other=0.0)


@triton.jit
def _forward(
    embedding, centers, inverse_norm, target, partial, B, start, stop, rows_each, scale,
    D: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the largest logit, and the sum of exponentials below it, of one tile of classes for a range of rows."""
    first = start + tl.program_id(0) * CLASSES
    column = first + tl.arange(0, CLASSES)
    factor = scale * _load_inverse_norm(inverse_norm, column, stop)
    held = ()
    for chunk in tl.static_range(CHUNKS):
        held += (_load(centers, first, stop, chunk, D, CHUNK, CLASSES, True).to(OPERAND),)
    largest = partial + tl.program_id(0).to(tl.int64) * B
    total = largest + tl.num_programs(0).to(tl.int64) * B
    first_row = tl.program_id(1) * rows_each
    for top in range(first_row, tl.minimum(B, first_row + rows_each), ROWS):
        row = top + tl.arange(0, ROWS)
        own = tl.load(target + row, mask=row < B, other=-1)
        logit = tl.zeros([CLASSES, ROWS], tl.float32)
        for chunk in tl.static_range(CHUNKS):
            streamed = _load(embedding, top, B, chunk, D, CHUNK, ROWS, False).to(OPERAND)
            logit = tl.dot(held[chunk], streamed.T, logit, input_precision=PRECISION)
        negative = (column < stop)[:, None] & (column[:, None] != own[None, :])
        logit = tl.where(negative, logit * factor[:, None], float("-inf"))
        peak = tl.maximum(tl.max(logit, 0), _LOWEST)
        tl.store(largest + row, peak, mask=row < B)
        tl.store(total + row, tl.sum(tl.exp(logit - peak[None, :]), 0), mask=row < B)


@triton.jit
def _embedding_gradient(
    embedding, centers, partial, inverse_norm, target, lse, weight, B, S, classes_each, scale,
    D: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the negatives' part of one tile of rows over a range of classes; ``weight``: lse_gradient · scale."""
    top = tl.program_id(0) * ROWS
    row = top + tl.arange(0, ROWS)
    own = tl.load(target + row, mask=row < B, other=-1)
    row_lse = tl.load(lse + row, mask=row < B, other=0.0)
    row_weight = tl.load(weight + row, mask=row < B, other=0.0)
    held = ()
    sums = ()
    for chunk in tl.static_range(CHUNKS):
        held += (_load(embedding, top, B, chunk, D, CHUNK, ROWS, False).to(OPERAND),)
        sums += (tl.zeros([ROWS, CHUNK], tl.float32),)
    partial += tl.program_id(1).to(tl.int64) * B * D
    start = tl.program_id(1) * classes_each
    stop = tl.minimum(S, start + classes_each)
    for first in range(start, stop, CLASSES):
        column = first + tl.arange(0, CLASSES)
        factor = _load_inverse_norm(inverse_norm, column, stop)
        streamed = ()
        cosine = tl.zeros([ROWS, CLASSES], tl.float32)
        for chunk in tl.static_range(CHUNKS):
            streamed += (_load(centers, first, stop, chunk, D, CHUNK, CLASSES, False).to(OPERAND),)
            cosine = tl.dot(held[chunk], streamed[chunk].T, cosine, input_precision=PRECISION)
        share = tl.exp(cosine * (scale * factor)[None, :] - row_lse[:, None]) * row_weight[:, None] * factor[None, :]
        negative = (column < stop)[None, :] & (column[None, :] != own[:, None])
        share = tl.where(negative, share, 0.0).to(OPERAND)
        grown = ()
        for chunk in tl.static_range(CHUNKS):
            grown += (tl.dot(share, streamed[chunk], sums[chunk], input_precision=PRECISION),)
        sums = grown
    for chunk in tl.static_range(CHUNKS):
        _store(partial, sums[chunk], top, B, chunk, D, CHUNK, ROWS)


@triton.jit
def _centers_gradient(
    embedding, centers, gradient, inverse_norm, target, lse, weight, cosine_gradient, B, start, stop, scale,
    D: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of one tile of raw centers; ``weight``: lse_gradient · scale."""
    first = start + tl.program_id(0) * CLASSES
    column = first + tl.arange(0, CLASSES)
    factor = _load_inverse_norm(inverse_norm, column, stop)
    held = ()
    sums = ()
    for chunk in tl.static_range(CHUNKS):
        held += (_load(centers, first, stop, chunk, D, CHUNK, CLASSES, True).to(OPERAND),)
        sums += (tl.zeros([CLASSES, CHUNK], tl.float32),)
    for top in range(0, B, ROWS):
        row = top + tl.arange(0, ROWS)
        own = tl.load(target + row, mask=row < B, other=-1)
        row_lse = tl.load(lse + row, mask=row < B, other=0.0)
        row_weight = tl.load(weight + row, mask=row < B, other=0.0)
        own_weight = tl.load(cosine_gradient + row, mask=row < B, other=0.0)
        streamed = ()
        cosine = tl.zeros([CLASSES, ROWS], tl.float32)
        for chunk in tl.static_range(CHUNKS):
            streamed += (_load(embedding, top, B, chunk, D, CHUNK, ROWS, False).to(OPERAND),)
            cosine = tl.dot(held[chunk], streamed[chunk].T, cosine, input_precision=PRECISION)
        share = tl.exp(cosine * (scale * factor)[:, None] - row_lse[None, :]) * row_weight[None, :]
        share = tl.where(column[:, None] == own[None, :], own_weight[None, :], share).to(OPERAND)
        grown = ()
        for chunk in tl.static_range(CHUNKS):
            grown += (tl.dot(share, streamed[chunk], sums[chunk], input_precision=PRECISION),)
        sums = grown
    radial = tl.zeros([CLASSES], tl.float32)
    if inverse_norm is not None:
        for chunk in tl.static_range(CHUNKS):
            again = _load(centers, first, stop, chunk, D, CHUNK, CLASSES, True).to(tl.float32)
            radial += tl.sum(again * sums[chunk], 1)
        radial *= factor * factor
    for chunk in tl.static_range(CHUNKS):
        result = sums[chunk]
        if inverse_norm is not None:
            again = _load(centers, first, stop, chunk, D, CHUNK, CLASSES, True).to(tl.float32)
            result = (result - again * radial[:, None]) * factor[:, None]
        _store(gradient, result, first - start, stop - start, chunk, D, CHUNK, CLASSES)
