"""Mixed precision: what the backbone computes in, and the scaling that float16's gradients need."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.faster import is_faster

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(name: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16"; "auto" becomes what is fastest here, the same on every rank.

    A GPU with bf16 units computes in bf16, an older one in fp16. CPUs differ by orders of magnitude in either
    direction, so there a convolution is timed in both (rank 0 decides).

    Errors: ConfigError for an unknown name.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision: {name!r}: must be one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    return collectives.from_rank_0(lambda: _fastest(device))


def _fastest(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _is_faster_in_bf16(_convolution) else "fp32"


def choose_products(precision: str, device: torch.device) -> str:
    """Return what a head's matrix products multiply in a run of this precision, "fp32" or "bf16".

    In fp32 that, else bf16; but a CPU that is fast at convolutions in bf16 may be slow at products, so there a product
    is timed in both (rank 0 decides).
    """
    if precision == "fp32":
        return "fp32"
    if device.type != "cpu":
        return "bf16"
    return collectives.from_rank_0(lambda: "bf16" if _is_faster_in_bf16(_product) else "fp32")


def _is_faster_in_bf16(work_in: Callable[[torch.dtype], Callable[[], object]]) -> bool:
    return is_faster(work_in(torch.bfloat16), than=work_in(torch.float32))


def _convolution(dtype: torch.dtype) -> Callable[[], object]:
    """Return a convolution's forward and backward pass."""
    layer = nn.Conv2d(64, 64, 3, padding=1, dtype=dtype)
    images = torch.ones(4, 64, 28, 28, dtype=dtype, requires_grad=True).contiguous(memory_format=torch.channels_last)
    return lambda: layer(images).sum().backward()


def _product(dtype: torch.dtype) -> Callable[[], object]:
    """Return the product of 128 embeddings and a block of centers."""
    embeddings, centers = torch.ones(128, 512, dtype=dtype), torch.ones(2048, 512, dtype=dtype)
    return lambda: embeddings @ centers.T


def autocast(precision: str, device: torch.device, several: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the backbone runs.

    Args:
        precision: fp32, bf16 or fp16.
        device: of this rank.
        several: whether it runs more than once in it: then the narrow copies of its weights are kept from one to the
            next. They would be kept to the context's end of a single pass too, of which nothing needs them.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision], cache_enabled=several)


class _OneVerdict(torch.amp.GradScaler):
    """A scaler whose verdict "an infinite gradient: skip this step" is one for all ranks: each holds its own centers.

    torch's ShardedGradScaler sums the verdicts; a fused optimizer skips where it reads 1, not 2.
    """

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, and note whether any rank's is infinite."""
        if not self.is_enabled():
            return
        super().unscale_(optimizer)
        for found in self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values():
            found.copy_(collectives.all_reduce_max(found))


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler of the loss, on only in fp16. Call its ``unscale_`` before its ``step``."""
    return _OneVerdict(device.type, enabled=precision == "fp16")


def is_void(norm: Tensor, scaler: torch.amp.GradScaler) -> Tensor:
    """Return whether gradients of this norm, a scalar, are of no use, as a flag on the device.

    In fp16 overflow is how the scale is sought, and the scaler alone passes such a step over. Below a scale of 1 the
    gradients would overflow unscaled too, so none will be found.
    """
    overflows = ~torch.isfinite(norm)
    scale = scaler._get_scale_async() if scaler.is_enabled() else None
    return overflows if scale is None else overflows & (scale < 1)
