import pytest
import torch
from torch import nn

from arcdist.backbones import prelu
from arcdist.backbones.prelu import PReLU

LAYOUTS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


def both(shape, dtype, layout, slope_dtype=None):
    """Return torch's and our output, input gradient and slope gradient of the same input."""
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=draws, dtype=torch.float64)
    x.view(-1)[::7] = 0  # the kink
    slope = torch.randn(shape[1], generator=draws, dtype=torch.float64)
    gradient = torch.randn(shape, generator=draws, dtype=torch.float64)
    results = []
    for kind, of_slope in ((nn.PReLU, dtype), (PReLU, slope_dtype or dtype)):
        layer = kind(shape[1]).to(of_slope)
        layer.weight.data.copy_(slope)
        given = x.to(dtype).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
        output = layer(given)
        output.backward(gradient.to(dtype).contiguous(memory_format=LAYOUTS[layout]))
        results.append((output, given.grad, layer.weight.grad))
    return results


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (2, 64, 8, 8), (1, 1, 1, 1)])
def test_values_and_gradients_are_torchs(shape, layout):
    theirs, ours = both(shape, torch.float64, layout)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cached", [1, 3 * 5 * 7 * 2, 10**6])
def test_gradients_do_not_depend_on_how_many_images_are_taken_at_a_time(layout, cached, monkeypatch):
    monkeypatch.setattr(prelu, "_CACHED", cached)
    theirs, ours = both((5, 3, 5, 7), torch.float64, layout)
    torch.testing.assert_close(ours, theirs)


def test_gradients_of_narrow_maps_are_summed_wide():
    exact, _ = both((8, 16, 28, 28), torch.float64, "channels_last")
    theirs, ours = both((8, 16, 28, 28), torch.bfloat16, "channels_last", slope_dtype=torch.float32)
    assert ours[0].dtype == ours[1].dtype == torch.bfloat16
    assert ours[2].dtype == torch.float32
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-2, atol=1e-2)  # torch rounds the slope first, too
    error = [(found[2].double() - exact[2]).norm() / exact[2].norm() for found in (theirs, ours)]
    assert error[1] < error[0]


def test_a_layer_under_autocast_keeps_the_maps_dtype():
    layer = PReLU(4)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(torch.randn(2, 4, 3, 3, dtype=torch.bfloat16, requires_grad=True))
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    assert layer.weight.grad is not None


def test_the_key_is_torchs():
    assert PReLU(3).state_dict().keys() == nn.PReLU(3).state_dict().keys()
