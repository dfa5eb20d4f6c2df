"""How much of the machine's arithmetic a run uses: its model's operations, counted once, times images a second."""

import re
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.func import functional_call

from arcdist.heads import PartialFC

_COUNTED = 2  # images: BatchNorm needs two
_BACKWARD = 2  # products of the backward pass for each of the forward pass
# TFLOP/s of dense bf16 products (fp16 where there are none), of the data sheets; by words of the device's name.
PEAK_TFLOP_PER_S = {
    "H200": 989, "H100 PCIe": 756, "H100": 989, "H800": 989, "B200": 2250, "A100": 312, "A800": 312, "L40S": 362,
    "L4": 121, "A10": 125, "V100": 125, "T4": 65,
}  # fmt: skip


class Work:
    """The operations of a step, and what share of the devices' peak they come to.

    Args:
        backbone: of the run; it is not computed, only counted.
        head: of the run.
        image_size: height and width in pixels of a step's images, steps counted from 0.
        ranks: number of devices.
        device: of this rank; only known GPUs have a peak.
    """

    def __init__(
        self, backbone: nn.Module, head: PartialFC, image_size: Callable[[int], int], ranks: int, device: torch.device
    ) -> None:
        self._image_size, self._ranks = image_size, ranks
        self._backbone = cache(lambda size: (1 + _BACKWARD) * forward_flops(backbone, size))
        centers = head.num_classes * head.subcenters * head.sample_rate
        self._head = 2 * (1 + _BACKWARD) * head.embedding_dim * centers
        self._device = device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak_tflop_per_s(name)

    def told(self, step: int, images_per_s: float) -> dict[str, float]:
        """Return what a record says: TFLOP/s of all ranks, on a known GPU their share of the peak, and peak memory.

        No number of it is read from the device's queue: nothing waits. Counting takes seconds, once.

        Args:
            step: counted from 1.
            images_per_s: of all ranks.
        """
        rate = images_per_s * (self._backbone(self._image_size(step - 1)) + self._head) / 1e12
        told = {"tflop_per_s": rate}
        if self._peak:
            told["flops_utilization"] = rate / (self._peak * self._ranks)
        if self._device.type == "cuda":
            told["peak_memory_mib"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        return told


def peak_tflop_per_s(name: str) -> float | None:
    """Return the rate on a GPU's data sheet, None for one that is not known here.

    Args:
        name: as torch has it, such as ``NVIDIA A100-SXM4-80GB``.
    """
    words = set(re.split(r"[\s-]+", name))
    return next((peak for kind, peak in PEAK_TFLOP_PER_S.items() if words >= set(kind.split())), None)


def forward_flops(backbone: nn.Module, image_size: int) -> float:
    """Return the multiplications and additions of the products of one image's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode  # not before the first step: it takes a while to import

    tensors = dict([*backbone.named_parameters(), *backbone.named_buffers()])
    images = torch.empty(_COUNTED, 3, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(backbone, {name: tensor.detach().to("meta") for name, tensor in tensors.items()}, (images,))
    return counter.get_total_flops() / _COUNTED
