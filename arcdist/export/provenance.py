"""What is known of a backbone: its network, the training that made it, what it scored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import arcdist
from arcdist.backbones.trained import WEIGHTS, Described, describe_weights, read_metadata
from arcdist.checkpoint.marker import MARKER, read_marker
from arcdist.checkpoint.run_config import read_run_config
from arcdist.checkpoint.schema import migrated
from arcdist.data.template import TEMPLATE, TEMPLATE_SIZE_PX
from arcdist.errors import DataError

MEAN = STD = 127.5  # of a pixel in [0, 255], all channels alike: (pixel - MEAN) / STD is what backbones take
_SCORES = ("pairs", "accuracy", "std", "eer", "auc")
_COUNTS = ("step", "num_classes", "images", "precision")  # which a checkpoint's weights say of themselves


@dataclass(frozen=True)
class Provenance:
    """A backbone and where it comes from."""

    network: Described
    training: dict[str, str] = field(default_factory=dict)
    """Steps, classes, images, precision: whatever the weights' file says."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The configuration of the run; of paths only the last name, since the rest is nobody's business."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What these weights scored, as ``lfw.accuracy``."""

    def template(self) -> list[list[float]]:
        """Return the five points that faces are aligned to, x and y in pixels of this network's images."""
        return np.round(TEMPLATE * (self.network.image_size / TEMPLATE_SIZE_PX), 4).tolist()

    def metadata(self, license: str) -> dict[str, str]:
        """Return the same as a file of weights holds it: strings; what is no word or number is JSON."""
        return {
            "arcdist": arcdist.__version__,
            "backbone": self.network.backbone,
            "embedding_dim": str(self.network.embedding_dim),
            "image_size": str(self.network.image_size),
            **self.training,
            "color": "RGB",
            "mean": str(MEAN),
            "std": str(STD),
            "template": json.dumps(self.template()),
            "recipe": json.dumps(self.recipe, ensure_ascii=False),
            "metrics": json.dumps(self.metrics),
            "license": license,
        }


def provenance_of(weights: Path, backbone: str = "", embedding_dim: int = 512) -> Provenance:
    """Return what is known of a file of weights: by itself, and by the run or the checkpoint that it lies in.

    Args:
        weights: a file, as ``weights_file`` finds it.
        backbone: see ``describe_weights``.
        embedding_dim: likewise.

    Errors: those of ``describe_weights``; DataError where what lies beside it is damaged, NewerError where a newer
        arcdist has written it.
    """
    network = describe_weights(weights, backbone, embedding_dim)
    told = read_metadata(weights)
    recipe, metrics = _json(told, "recipe"), _json(told, "metrics")
    folder, is_end = weights.parent, weights.name == WEIGHTS
    if is_end and (folder / MARKER).exists():
        marker = read_marker(folder)
        recipe, metrics = migrated(marker["config"], folder), marker["metrics"]
    elif (folder / "summary.json").exists() and weights.name in (WEIGHTS, f"best.{WEIGHTS}"):
        summary = _read_object(folder / "summary.json")
        recipe = read_run_config(folder)
        metrics = _scores_at_end(summary) if is_end else _best_score(summary)
    return Provenance(
        network,
        {key: told[key] for key in _COUNTS if key in told},
        _without_places(recipe),
        {name: value for name, value in metrics.items() if isinstance(value, int | float)},
    )


def _scores_at_end(summary: Mapping[str, Any]) -> dict[str, Any]:
    sets = _object(summary, "sets")
    results = {name: _object(sets, name) for name in sets}
    return {f"{name}.{key}": result[key] for name, result in results.items() for key in _SCORES if key in result}


def _best_score(summary: Mapping[str, Any]) -> dict[str, Any]:
    best = _object(summary, "best")
    return {str(best["metric"]): best["value"]} if {"metric", "value"} <= best.keys() else {}


def _object(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _json(told: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(told.get(key, "{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no object")
    return value


def _without_places(tree: Any) -> Any:
    """Return a configuration in which of every path only the last name is left."""
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_places(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and "/" in tree else tree
