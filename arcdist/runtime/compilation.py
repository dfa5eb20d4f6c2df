"""``torch.compile``, by the name of a mode, and what it needs of a machine."""

import os
import shutil
from typing import cast

import torch
from torch import nn

from arcdist.errors import ConfigError

COMPILED = ("none", "default", "reduce-overhead", "max-autotune")  # reduce-overhead: CUDA graphs


def check_compiled(mode: str) -> None:
    """Raise ConfigError where no mode is called so."""
    if mode not in COMPILED:
        raise ConfigError(f"train.compile: {mode!r}: must be one of {', '.join(COMPILED)}")


def compiled(module: nn.Module, mode: str) -> nn.Module:
    """Return the module as its first call with images of a size will compile it; itself where ``mode`` is none.

    What is returned shares the module's weights and state. The module itself stays as it is, for what wants to call it
    with other sizes.

    Errors: ConfigError where there is no compiler for what torch.compile writes, C++ (for a GPU a few lines of C).
    """
    if mode == "none":
        return module
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise ConfigError(
            f"train.compile: {mode!r}: needs a C++ compiler, and {compiler!r} is not one of this machine; install g++, "
            "name another in CXX, or take train.compile=none"
        )
    return cast(nn.Module, torch.compile(module, mode=mode, dynamic=False))
