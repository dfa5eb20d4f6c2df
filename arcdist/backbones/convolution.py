"""Convolutions whose weights' gradient is a matrix product, for CPUs on which oneDNN is slow at it."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CHANNELS = 64  # of a pixel, from which on copying a window is cheap beside its product
_CACHED = 2**19  # elements of the windows that lie side by side at a time; they stay in a CPU's cache
_MANY = 2**22  # elements of all windows, from which on calling so many operations costs little beside them


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with the same key and the same result; its weights' gradient may come from matrix products.

    With the channels last in memory and AVX2 alone, oneDNN gets 31 to 99 GFLOP/s at this gradient on two cores where
    its other passes get 110 to 150: it takes half of a backward pass. Windows copied side by side, a few images or rows
    at a time, and a product for each get 68 to 119. Where there is AVX-512, on other devices, for small maps, few
    channels, windows of one pixel, groups and 16-bit numbers, it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of ``[b, C, H, W]``."""
        if not (torch.is_grad_enabled() and self._slow_in_torch(input)):
            return super().forward(input)
        result: Tensor = _Conv2d.apply(input, self.weight, self.stride, self.padding)
        return result

    def _slow_in_torch(self, x: Tensor) -> bool:
        fits = self.kernel_size != (1, 1) and self.in_channels >= _CHANNELS and self.groups == 1
        windows = x.numel() * math.prod(self.kernel_size) // math.prod(self.stride)
        plain = self.bias is None and self.dilation == (1, 1) and self.padding_mode == "zeros"
        return (
            fits
            and plain
            and windows >= _MANY
            and not isinstance(self.padding, str)
            and not torch.compiler.is_compiling()
            and type(x) is Tensor  # and does not stand for one, as where a plan counts operations
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.cpu.get_cpu_capability() == "AVX2"
        )


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            geometry = (ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1)
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, weight.shape[2:], ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def weight_gradient(
    gradient: Tensor, x: Tensor, kernel: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient ``[out, in, h, w]`` of a convolution's weights, the channels last in memory.

    Args:
        gradient: of the output, ``[b, out, H', W']``.
        x: the input, ``[b, in, H, W]``.
        kernel: h and w.
        stride: of the windows, down and across.
        padding: zeros around the input, above and below, left and right.
    """
    (outputs, height, width), inputs = gradient.shape[1:], x.shape[1]
    window = inputs * kernel.numel()
    rows = max(1, _CACHED // (window * width))
    images = max(1, rows // height)
    total = x.new_zeros(window, outputs)
    for some_x, some_gradient in zip(x.permute(0, 2, 3, 1).split(images), gradient.permute(0, 2, 3, 1).split(images)):
        padded = F.pad(some_x, (0, 0, padding[1], padding[1], padding[0], padding[0]))
        windows = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1]).permute(0, 1, 2, 4, 5, 3)
        for some_windows, some_rows in zip(windows.split(rows, 1), some_gradient.split(rows, 1)):
            total.addmm_(some_windows.reshape(-1, window).t(), some_rows.reshape(-1, outputs))
    by_pixel = total.view(*kernel, inputs, outputs).permute(3, 2, 0, 1)
    return by_pixel.contiguous(memory_format=torch.channels_last)
