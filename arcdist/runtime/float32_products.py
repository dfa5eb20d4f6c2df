"""The library that multiplies float32 matrices on a CPU.

torch asks its BLAS (MKL in its builds for x86), and oneDNN only where it was told that bfloat16 would do. But oneDNN
then takes bfloat16 only where a CPU has matrix units for it (Intel's AMX). Elsewhere it multiplies in float32, and on
an AMD with AVX-512, which MKL leaves unused there, in less than half of the time that MKL takes.
"""

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.faster import is_faster

LIBRARIES = ("blas", "onednn")
_PRECISION_OF_TORCH = {"blas": "highest", "onednn": "medium"}
_MOST_ERROR = 1e-5  # relative; float32 has 2e-7 to 5e-7 in these products, bfloat16 2e-3
_ROWS, _DIM, _CLASSES = 128, 512, 1024


def choose_library(name: str) -> str:
    """Multiply float32 matrices of CPUs by ``blas`` or ``onednn`` from now on, in this process, and return which.

    ``auto`` times products of a head's kinds by both (rank 0 decides, in some 50 ms), and passes oneDNN by where it
    rounds factors to bfloat16.

    Errors: ConfigError for ``onednn`` where it does.
    """
    chosen = collectives.from_rank_0(_fastest) if name == "auto" else name
    if chosen == "onednn" and not is_float32("onednn"):
        if name == "onednn":
            raise ConfigError(
                "runtime.float32_products: 'onednn': rounds to bfloat16 on this CPU, which has units for it; take "
                "blas or auto (or train.precision=bf16, head.products=bf16)"
            )
        chosen = "blas"
    torch.set_float32_matmul_precision(_PRECISION_OF_TORCH[chosen])
    return chosen


def keep_library(name: str) -> str:
    """Go on with the library that a run began with, so that it gives the same bits; return it.

    Where that one rounds on this CPU: with ``blas``.
    """
    with contextlib.suppress(ConfigError):
        return choose_library(name)
    return choose_library("blas")


def library() -> str:
    """Return which one it is now."""
    return "onednn" if torch.get_float32_matmul_precision() == "medium" else "blas"


def _fastest() -> str:
    factors = _factors()

    def multiply(name: str) -> None:
        with multiplied_by(name):
            _products(*factors)

    return "onednn" if is_faster(lambda: multiply("onednn"), than=lambda: multiply("blas")) else "blas"


@contextlib.contextmanager
def multiplied_by(name: str, tf32: bool = False) -> Generator[None]:
    """Multiply by this library in a block, whether it rounds or not; on a GPU also in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else _PRECISION_OF_TORCH[name])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_float32(name: str) -> bool:
    """Return whether products by this library err by no more than float32's rounding."""
    factors = _factors()
    exact = _products(*(factor.double() for factor in factors))
    with multiplied_by(name):
        found = _products(*factors)
    return all((a - b).norm() / b.norm() < _MOST_ERROR for a, b in zip(found, exact, strict=True))


def _factors() -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings, centers and weights of a block, drawn apart from any other draw."""
    draws = torch.Generator().manual_seed(0)
    shapes = ((_ROWS, _DIM), (_CLASSES, _DIM), (_ROWS, _CLASSES))
    embedding, centers, weights = (torch.randn(shape, generator=draws) for shape in shapes)
    return embedding, centers, weights


def _products(embedding: Tensor, centers: Tensor, weights: Tensor) -> list[Tensor]:
    return [embedding @ centers.T, weights @ centers, weights.T @ embedding]
