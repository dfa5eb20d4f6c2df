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


def compiled(module: nn.Module, mode: str, device: torch.device) -> nn.Module:
    """Return the module as its first call with images of a size will compile it; itself where ``mode`` is none.

    What is returned shares the module's weights and state. The module itself stays as it is, for what wants to call it
    with other sizes.

    Errors: ConfigError where there is no compiler for what torch.compile writes: C++, for a GPU Triton and a few lines
    of C that start it.
    """
    if mode == "none":
        return module
    language, variable, usual = ("C", "CC", "gcc") if device.type == "cuda" else ("C++", "CXX", "g++")
    compiler = os.environ.get(variable, usual)
    if not shutil.which(compiler):
        raise ConfigError(
            f"train.compile: {mode!r}: needs a {language} compiler, and {compiler!r} is not one of this machine; "
            f"install {usual}, name another in {variable}, or take train.compile=none"
        )
    return cast(nn.Module, torch.compile(module, mode=mode, dynamic=False))
