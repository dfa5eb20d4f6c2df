import pytest
import torch
from torch import nn

from arcdist.backbones.grouped import GroupedConv2d


@pytest.mark.parametrize(("channels", "groups"), [((128, 128), 64), ((16, 32), 8), ((12, 12), 6), ((32, 32), 32)])
def test_a_convolution_and_its_gradients_are_torchs(channels, groups):
    results = []
    for kind in (nn.Conv2d, GroupedConv2d):
        torch.manual_seed(3)
        layer = kind(*channels, 3, 2, padding=1, groups=groups, bias=False).double()
        x = torch.randn(2, channels[0], 9, 9, dtype=torch.float64, requires_grad=True)
        output = layer(x)
        output.square().sum().backward()
        results.append((output, x.grad, layer.weight.grad))
    torch.testing.assert_close(results[1], results[0])
