"""A trained backbone, from the file or the folder that its weights lie in."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from arcdist.backbones.onnx_net import OnnxBackbone
from arcdist.backbones.registry import BackboneConfig
from arcdist.backbones.weights import load_backbone_weights
from arcdist.errors import ConfigError, DataError

WEIGHTS = "model.safetensors"  # in the folder of a run, of a checkpoint, and of a model on a hub
CONFIG = "config.json"  # in the last
_IMAGE_SIZE_PX = 112  # what the field's networks take


@dataclass(frozen=True)
class Described:
    """What a file of weights is of."""

    backbone: str
    embedding_dim: int
    image_size: int


def load_backbone(source: str | Path, backbone: str = "", embedding_dim: int = 512) -> nn.Module:
    """Return a trained backbone in eval mode: ``[b, 3, 112, 112] → [b, D]``, on the CPU.

    Args:
        source: a folder that ``arcdist export hub`` has made, or that of a finished run; a ``.safetensors``,
            arcface_torch's ``.pt``, or anybody's ``.onnx``, which cannot be trained.
        backbone: the name of the network; empty where the file says it, as arcdist's own do.
        embedding_dim: ``D``, of a file that does not say it.

    Errors: DataError for what is missing, damaged or of another network; ConfigError where the file does not say which
        backbone it is of.
    """
    path = weights_file(source)
    if path.suffix == ".onnx":
        return OnnxBackbone(path).eval()
    told = describe_weights(path, backbone, embedding_dim)
    model = BackboneConfig(name=told.backbone, embedding_dim=told.embedding_dim).build()
    load_backbone_weights(path, model)
    return model.eval()


def weights_file(source: str | Path) -> Path:
    """Return the file that a source's weights are in: itself, or ``model.safetensors`` of a folder.

    Errors: DataError where there is none.
    """
    path = Path(source)
    try:
        if path.is_dir():
            if not (path / WEIGHTS).exists():
                raise DataError(f"{path}: holds no {WEIGHTS}")
            return path / WEIGHTS
        found = path.exists()
    except OSError as error:
        raise DataError(f"{str(path)[:80]}: {error.strerror}") from None
    if not found:
        raise DataError(f"{path}: no such file or folder")
    return path


def describe_weights(path: Path, backbone: str = "", embedding_dim: int = 512) -> Described:
    """Return what a file says of itself, in its metadata or the ``config.json`` beside it; else what is given.

    Args:
        path: the file.
        backbone: goes before what the file says.
        embedding_dim: of a file that does not say it.

    Errors: ConfigError where neither names the backbone; DataError for a file that cannot be read.
    """
    told = _config_beside(path) | read_metadata(path)
    name = backbone or str(told.get("backbone", ""))
    if not name:
        raise ConfigError(f"backbone: {path} does not say which network it is of; add backbone=r50, or the like")
    return Described(name, _number(told, "embedding_dim", embedding_dim), _number(told, "image_size", _IMAGE_SIZE_PX))


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a ``.safetensors`` says of itself; nothing for another kind of file."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise DataError(f"{path}: no safetensors file: {error}") from error


def _config_beside(path: Path) -> dict[str, Any]:
    config = path.with_name(CONFIG)
    if path.name != WEIGHTS or not config.is_file():
        return {}
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{config}: cannot be read: {error}") from None
    return told if isinstance(told, dict) else {}


def _number(told: dict[str, Any], key: str, default: int) -> int:
    value = str(told.get(key, ""))
    return int(value) if value.isdecimal() else default
