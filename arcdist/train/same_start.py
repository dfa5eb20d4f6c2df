"""What every rank of a run must have been started with alike: configuration, code, torch, data."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import arcdist
from arcdist.data.image_set import ImageSet
from arcdist.data.selection import Selection
from arcdist.errors import DataError
from arcdist.runtime.agreement import check_started_alike
from arcdist.train.config import TrainConfig, flat

_OF_A_NODE = ("data.cache.", "data.loader.", "runtime.threads", "runtime.keep_memory", "json")  # may differ
_IMAGES_LOOKED_AT = 16


def check_same_program(config: TrainConfig) -> None:
    """Raise DifferentStartError, on every rank, where one has another configuration, arcdist or torch."""
    told: dict[str, Any] = {
        key: value for key, value in flat(config.as_dict()).items() if not key.startswith(_OF_A_NODE)
    }
    check_started_alike(
        {**told, "arcdist": arcdist.__version__, "arcdist's code": _digest_of_code(), "torch": torch.__version__}
    )


def check_same_data(dataset: "ImageSet | Selection") -> None:
    """Raise DifferentStartError, on every rank, where one has other images: an older copy on its own disk, say.

    Cost: reads a few images.
    """
    looked_at = {"images": len(dataset), "num_classes": dataset.num_classes, "a few images": _digest_of_data(dataset)}
    check_started_alike(looked_at)


def _digest_of_code() -> str:
    package, digest = Path(arcdist.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _digest_of_data(dataset: "ImageSet | Selection") -> str:
    digest = hashlib.sha256()
    for sample in np.linspace(0, len(dataset) - 1, _IMAGES_LOOKED_AT).astype(int).tolist():
        with contextlib.suppress(DataError):  # a damaged one is for the loader, which may pass it over
            label, payload = dataset.read(sample)
            digest.update(f"{sample} {label}\n".encode() + payload)
    return digest.hexdigest()[:16]
