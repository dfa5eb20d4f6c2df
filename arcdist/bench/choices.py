"""What every bench refuses alike, before anything is measured."""

from collections.abc import Iterable

import torch

from arcdist.errors import ConfigError


def check_known(key: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first value that is not known, with those that are."""
    known = list(known)
    for value in values:
        if value not in known:
            raise ConfigError(f"{key}: {value!r}: must be of {', '.join(known)}")


def check_device(device: str) -> None:
    """Raise ConfigError for a device that is no choice, or that is not here."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {device!r}: must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda: torch finds no GPU here; use device=cpu")
