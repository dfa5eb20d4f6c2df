"""What the tests of all backbones share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def shaken() -> Callable[[nn.Module], nn.Module]:
    """Return a function that makes a fresh network float64, with no weight or statistic left at a neutral value."""

    def shake(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        model.double()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.3)
        return model

    return shake
