"""What a run chose by measuring its machine, and keeps when it goes on: other choices would give other bits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from arcdist.runtime import float32_products
from arcdist.train.config import TrainConfig
from arcdist.train.step import Step


def choices(step: Step) -> dict[str, str]:
    """Return them as a checkpoint and a run's summary say them."""
    return {
        "precision": step.precision,
        "products": step.head.tuning.products,
        "float32_products": float32_products.library(),
    }


def keep_choices(step: Step, config: TrainConfig, marker: Mapping[str, Any]) -> None:
    """Take over from a checkpoint's marker what the configuration leaves to the machine.

    A checkpoint of before there was a choice of library is of a run that used BLAS.
    """
    if config.train.precision == "auto":
        step.precision = marker["precision"]
    if config.head.products == "auto":
        step.head.tuning = replace(step.head.tuning, products=marker["products"])
    if config.runtime.float32_products == "auto" and step.world.device.type == "cpu":
        float32_products.keep_library(marker.get("float32_products", "blas"))
