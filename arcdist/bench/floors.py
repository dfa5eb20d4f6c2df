"""The best rates that this machine reaches in a head's own parts: its products, by form and block; copies; exp."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from arcdist.bench.cases import Case, Method
from arcdist.runtime.float32_products import LIBRARIES, is_float32, multiplied_by

_SWEPT_ROWS = 65536  # of the centers that a rate is measured over: more than a cache holds
_COPIED_MIB = 256
_EXP_COLUMNS = 2048
_BLOCKS = {"cpu": (1024, 2048, 4096, 8192), "cuda": (8192, 16384, 32768, 65536)}
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

# Over a block W of the centers: E [B, D], W [block, D], P [B, block], Q [block, B]; dE and dW as E and W.
_Multiply = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_FORMS: dict[str, tuple[str, _Multiply]] = {
    "E·Wᵀ": ("logits", lambda E, W, P, Q, dE, dW: torch.mm(E, W.T, out=P)),
    "W·Eᵀ": ("logits", lambda E, W, P, Q, dE, dW: torch.mm(W, E.T, out=Q)),
    "P·W": ("embedding gradient", lambda E, W, P, Q, dE, dW: torch.mm(P, W, out=dE)),
    "Qᵀ·W": ("embedding gradient", lambda E, W, P, Q, dE, dW: torch.mm(Q.T, W, out=dE)),
    "Pᵀ·E": ("centers gradient", lambda E, W, P, Q, dE, dW: torch.mm(P.T, E, out=dW)),
    "Q·E": ("centers gradient", lambda E, W, P, Q, dE, dW: torch.mm(Q, E, out=dW)),
}


class Floors:
    """Measures rates, in a process that does nothing else.

    Args:
        device: where.
        threads: of the process.
        most_classes: no rate is of more centers than that.
        repeats: the best of so many counts.
    """

    def __init__(self, device: str, threads: int, most_classes: int, repeats: int) -> None:
        torch.set_num_threads(threads)
        self._device, self._repeats = torch.device(device), repeats
        self._rows = min(_SWEPT_ROWS, most_classes)

    def measure(self, batch_size: int, embedding_dim: int) -> dict[str, Any]:
        """Return the rates as a result file has them; those of bf16 only where it is not far slower than fp32."""
        blocks = sorted({min(block, self._rows) for block in _BLOCKS[self._device.type]})
        products: list[dict[str, Any]] = []
        for dtype, library in self._kinds():
            if dtype == "bf16":
                fp32, bf16 = (self._rate("E·Wᵀ", name, library, blocks[0], blocks[0], batch_size, embedding_dim)
                              for name in ("fp32", "bf16"))  # fmt: skip
                if bf16 < fp32 / 2:  # emulated, at up to 90 times the time
                    continue
            for form, (product, _) in _FORMS.items():
                for block in blocks:
                    rows = self._rows // block * block
                    rate = self._rate(form, dtype, library, block, rows, batch_size, embedding_dim)
                    kind = {"product": product, "form": form, "dtype": dtype, "library": library}
                    products.append({**kind, "block": block, "gflop_per_s": rate})
        return {
            "batch_size": batch_size,
            "embedding_dim": embedding_dim,
            "products": products,
            **self._memory_and_exp(batch_size),
        }

    def _kinds(self) -> list[tuple[str, str]]:
        """Return in which dtypes, and of float32 by which libraries, this machine multiplies."""
        if self._device.type == "cuda":
            return [(dtype, "blas") for dtype in ("fp32", "tf32", "bf16")]
        exact = [library for library in LIBRARIES if is_float32(library)]
        return [*(("fp32", library) for library in exact), ("bf16", "onednn")]

    def _rate(self, form: str, dtype: str, library: str, block: int, rows: int, B: int, D: int) -> float:
        """Return the GFLOP/s of one form of a product, block by block over ``rows`` centers."""
        shapes = {"E": (B, D), "W": (rows, D), "P": (B, block), "Q": (block, B), "dE": (B, D), "dW": (block, D)}
        E, W, P, Q, dE, dW = (torch.rand(shape, device=self._device).to(_DTYPES[dtype]) for shape in shapes.values())
        multiply = _FORMS[form][1]
        with multiplied_by(library, tf32=dtype == "tf32"):
            seconds = self._best_s(lambda: [multiply(E, part, P, Q, dE, dW) for part in W.split(block)])
        return round(2 * B * D * rows / seconds / 1e9, 1)

    def _memory_and_exp(self, batch_size: int) -> dict[str, float]:
        block = torch.rand(batch_size, _EXP_COLUMNS, device=self._device)
        source = torch.rand(_COPIED_MIB * self._rows // _SWEPT_ROWS * 2**18 + 2**20, device=self._device)
        exponentials, copied = torch.empty_like(block), torch.empty_like(source)
        exp_s = self._best_s(lambda: torch.exp(block, out=exponentials))
        copy_s = self._best_s(lambda: copied.copy_(source))
        in_place_s = self._best_s(lambda: copied.add_(source))  # a copy also reads what it overwrites
        each = source.numel() * source.element_size()
        return {
            "exp_g_per_s": round(block.numel() / exp_s / 1e9, 3),
            "copy_gb_per_s": round(2 * each / copy_s / 1e9, 2),
            "in_place_gb_per_s": round(3 * each / in_place_s / 1e9, 2),
        }

    def _best_s(self, work: Callable[[], Any]) -> float:
        self._seconds(work)
        return min(self._seconds(work) for _ in range(self._repeats))

    def _seconds(self, work: Callable[[], Any]) -> float:
        start = self._now()
        work()
        return self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def products_s(method: Method, case: Case, floors: Mapping[str, Any]) -> float | None:
    """Return the seconds of a method's own matrix products, each at its best measured rate; None where unknown."""
    best: dict[str, float] = {}
    for row in floors["products"]:
        if method.tuning is not None and row["dtype"] == method.tuning.products:
            best[row["product"]] = max(best.get(row["product"], 0.0), row["gflop_per_s"])
    products = method.products(case)
    if not products or not set(products) <= set(best):
        return None
    operations = 2 * case.batch_size * case.num_classes * case.embedding_dim
    return sum(times * operations / (best[product] * 1e9) for product, times in products.items())
