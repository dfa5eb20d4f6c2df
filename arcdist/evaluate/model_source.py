"""A trained backbone, from wherever its weights lie."""

import os
from pathlib import Path

from torch import nn

from arcdist.backbones import load_backbone
from arcdist.backbones.trained import describe_weights, weights_file
from arcdist.checkpoint.folder import WEIGHTS, newest_checkpoint
from arcdist.checkpoint.run_config import RUN_CONFIG, read_run_config
from arcdist.errors import DataError


def load_model(source: str, backbone: str, embedding_dim: int) -> nn.Module:
    """Return a backbone with its weights: of what ``load_backbone`` takes, and of a run that is not finished.

    Args:
        source: the folder of a run, a checkpoint or a hub, a .safetensors, or insightface's .pt.
        backbone: the name of the network; empty where the file says it, as arcdist's own do.
        embedding_dim: of a file that does not say it.

    Errors: DataError where there is none; ConfigError where the file does not say which backbone it is of.
    """
    return load_backbone(find_weights(source), backbone, embedding_dim)


def image_size_of(source: str) -> int:
    """Return the height and width in pixels that a source says its network takes; 112 where it does not.

    Errors: DataError where there is none.
    """
    return describe_weights(find_weights(source), backbone="any").image_size


def find_weights(source: str) -> Path:
    """Return the file that a source's weights are in; of a run, its end's or its newest whole checkpoint's.

    Errors: DataError where there is none; NewerError where a newer arcdist has written the run.
    """
    folder = Path(source)
    if os.path.isfile(folder / RUN_CONFIG):
        read_run_config(folder)
    if not os.path.isdir(folder / "checkpoints") or (folder / WEIGHTS).exists():
        return weights_file(source)
    newest = newest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise DataError(f"{folder}: holds no {WEIGHTS} and no whole checkpoint")
    return weights_file(newest)
