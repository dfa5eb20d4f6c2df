"""Whether a run may go on from a checkpoint: what differs from the run that wrote it, and what must not."""

import logging
from pathlib import Path
from typing import Any

from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.schema import migrated, removed
from arcdist.runtime import collectives
from arcdist.train.config import TrainConfig, differences, flat

_log = logging.getLogger("arcdist")
_MUST_STAY = (
    *("backbone.name", "backbone.embedding_dim", "optim.name", "data.image_size"),
    *("num_classes", "head.subcenters"),
    # They decide which samples come next.
    *("seed", "train.global_batch_size", "images", "data.weights", "data.per_identity"),
)
_SAID_BY_A_RUN = {"precision": str, "products": str, "scaler": dict, "train_s": float}
_SAYS_NOTHING = ("resume", "folder", "name", "json", "train.profile")


def check_same_run(folder: Path, marker: dict[str, Any], config: TrainConfig, *, num_classes: int, images: int) -> None:
    """Log what differs from the run that a checkpoint is of; refuse it where that cannot be right.

    Args:
        folder: of the checkpoint.
        marker: what it says of itself.
        config: of this run.
        num_classes: of this run's data.
        images: of this run's data.

    Errors: CheckpointError, with old and new values.
    """
    if lacks := [key for key, kind in _SAID_BY_A_RUN.items() if not isinstance(marker.get(key), kind)]:
        raise CheckpointError(f"{folder}: was not written by a run of this arcdist: it does not say {', '.join(lacks)}")
    saved = marker["config"]
    changed = differences(migrated(saved, folder), config.as_dict())
    changed |= {key: (value, None) for key, value in flat(removed(saved)).items() if value}
    for key, now in (("num_classes", num_classes), ("images", images)):
        if marker.get(key) != now:
            changed[key] = (marker.get(key), now)
    told = {key: pair for key, pair in changed.items() if key not in _SAYS_NOTHING}
    lines = "".join(f"\n  {key}: {old} → {new}" for key, (old, new) in told.items())
    if wrong := [key for key in told if key in _MUST_STAY]:
        raise CheckpointError(
            f"{folder}: this run cannot go on from it with another {', '.join(wrong)}; put that back, or start "
            f"another run (name=…). What differs:{lines}"
        )
    if lines and collectives.rank() == 0:
        _log.info("going on with another configuration than the checkpoint's:%s", lines)
