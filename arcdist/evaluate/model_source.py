"""A trained backbone, from wherever its weights lie."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from arcdist.backbones import create_backbone
from arcdist.checkpoint.convert import load_backbone_weights
from arcdist.checkpoint.folder import WEIGHTS, newest_checkpoint
from arcdist.errors import ConfigError, DataError


def load_model(source: str, backbone: str, embedding_dim: int) -> nn.Module:
    """Return a backbone with its weights.

    Args:
        source: the folder of a run or a checkpoint, a .safetensors, or insightface's .pt.
        backbone: the name of the network; empty where the file says it, as arcdist's own do.
        embedding_dim: of a file that does not say it.

    Errors: DataError where there is none; ConfigError where the file does not say which backbone it is of.
    """
    path = weights_file(source)
    name = backbone
    if path.suffix == ".safetensors":
        told = _metadata(path)
        name = name or told.get("backbone", "")
        if told.get("embedding_dim", "").isdecimal():
            embedding_dim = int(told["embedding_dim"])
    if not name:
        raise ConfigError(f"backbone: {path} does not say which network it is of; add backbone=r50, or the like")
    model = create_backbone(name, embedding_dim)
    load_backbone_weights(path, model)
    return model


def weights_file(source: str) -> Path:
    """Return the file of weights that a run's or checkpoint's folder, or a file's own path, stands for.

    Errors: DataError where there is none.
    """
    path = Path(source)
    try:
        path = _weights_in(path) if path.is_dir() else path
        found = path.exists()
    except OSError as error:
        raise DataError(f"{str(path)[:80]}: {error.strerror}") from None
    if not found:
        raise DataError(f"{path}: no such file or folder")
    return path


def _weights_in(folder: Path) -> Path:
    """Return the weights of a run (its end, or its newest checkpoint) or of a checkpoint."""
    if (folder / WEIGHTS).exists():
        return folder / WEIGHTS
    newest = newest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise DataError(f"{folder}: holds no {WEIGHTS} and no whole checkpoint")
    return newest / WEIGHTS


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path}: no safetensors file: {error}") from error
