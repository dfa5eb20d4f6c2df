import pytest
import torch
from torch import nn
from torch.nn import functional as F

from arcdist.backbones import convolution
from arcdist.backbones.convolution import Conv2d, weight_gradient

SHAPES = {  # images, channels, height, width; outputs, kernel, stride, padding
    "residual": ((3, 8, 9, 7), (5, (3, 3), (1, 1), (1, 1))),
    "halving": ((4, 6, 8, 8), (6, (3, 3), (2, 2), (1, 1))),
    "odd": ((2, 3, 11, 6), (4, (5, 2), (3, 1), (0, 1))),
    "whole map": ((2, 3, 4, 4), (7, (4, 4), (1, 1), (0, 0))),
}


@pytest.fixture
def slow_in_torch(monkeypatch):
    """Let every layer of this process take its own way, on a CPU of any kind."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(convolution, "_CHANNELS", 1)
    monkeypatch.setattr(convolution, "_MANY", 1)


@pytest.fixture
def own_gradients(monkeypatch):
    """Return the shapes of the gradients that are taken in our way from now on."""
    taken = []

    def counted(gradient, *others):
        taken.append(tuple(gradient.shape))
        return weight_gradient(gradient, *others)

    monkeypatch.setattr(convolution, "weight_gradient", counted)
    return taken


def operands(shape, outputs, kernel, stride, padding):
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draws, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, shape[1], *kernel, generator=draws, dtype=torch.float64)
    gradient = torch.randn(F.conv2d(x, weight, None, stride, padding).shape, generator=draws, dtype=torch.float64)
    return x, weight, gradient.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("cached", [1, 400, 10**6])  # a row, some rows or images, all at a time
@pytest.mark.parametrize("name", SHAPES)
def test_the_weights_gradient_is_torchs(name, cached, monkeypatch):
    monkeypatch.setattr(convolution, "_CACHED", cached)
    shape, (outputs, kernel, stride, padding) = SHAPES[name]
    x, weight, gradient = operands(shape, outputs, kernel, stride, padding)
    expected = torch.nn.grad.conv2d_weight(x, weight.shape, gradient, stride, padding)
    found = weight_gradient(gradient, x, weight.shape[2:], stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_layers_gradients_are_torchs(slow_in_torch, own_gradients):
    x, weight, gradient = (t.float() for t in operands(*(SHAPES["halving"][0], *SHAPES["halving"][1])))
    results = []
    for kind in (nn.Conv2d, Conv2d):
        layer = kind(6, 6, 3, 2, padding=1, bias=False).to(memory_format=torch.channels_last)
        layer.weight.data.copy_(weight)
        given = x.clone().requires_grad_()
        layer(given).backward(gradient)
        results.append((given.grad, layer.weight.grad))
    torch.testing.assert_close(results[1], results[0])
    assert own_gradients == [tuple(gradient.shape)]


def test_what_needs_no_gradient_gets_none(slow_in_torch, own_gradients):
    layer = Conv2d(2, 3, 3, bias=False).requires_grad_(False)
    x = torch.randn(2, 2, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert not own_gradients
    layer.requires_grad_()
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None
    assert len(own_gradients) == 1


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Conv2d(4, 4, 3, groups=2), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 3), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 3, bias=False, padding="same"), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 3, bias=False, dilation=2), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 3, bias=False, padding=1, padding_mode="reflect"), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 1, bias=False), torch.randn(2, 4, 5, 5)),
        (Conv2d(4, 4, 3, bias=False).double(), torch.randn(2, 4, 5, 5, dtype=torch.float64)),
    ],
    ids=["groups", "bias", "same", "dilation", "reflect", "pixel", "float64"],
)
def test_other_convolutions_are_torchs(layer, x, slow_in_torch, own_gradients):
    layer(x.contiguous(memory_format=torch.channels_last)).sum().backward()
    assert layer.weight.grad is not None
    assert not own_gradients


def test_channels_first_autocast_and_avx512_are_torchs(slow_in_torch, own_gradients, monkeypatch):
    layer = Conv2d(4, 4, 3, bias=False)
    x = torch.randn(2, 4, 5, 5)
    layer(x).sum().backward()
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        layer(last).sum().backward()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer(last).sum().backward()
    assert not own_gradients


def test_small_maps_are_torchs(own_gradients, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = Conv2d(64, 8, 3, stride=2, padding=1, bias=False)
    for images, ours in ((1, 0), (2**22 // (64 * 9 * 28 * 28) + 1, 1)):
        x = torch.randn(images, 64, 56, 56).contiguous(memory_format=torch.channels_last)
        layer(x).sum().backward()
        assert len(own_gradients) == ours
