"""The folder that a model hub takes as it is: weights, configuration, model card."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

import arcdist
from arcdist.backbones.trained import CONFIG, WEIGHTS
from arcdist.export.card import model_card
from arcdist.export.provenance import MEAN, STD, Provenance
from arcdist.export.written import written

CARD = "README.md"


def export_hub(model: nn.Module, folder: Path, provenance: Provenance, name: str, license: str) -> list[Path]:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``; return their paths.

    ``arcdist.backbones.load_backbone(folder)`` gives the same model. The folder may hold other files, as a clone of
    the hub's repository does; of these three the older ones are replaced.

    Args:
        model: the backbone.
        folder: made where it is missing.
        provenance: of the model.
        name: what the card calls it.
        license: of the weights, an identifier as ``apache-2.0``.

    Errors: DataError where the folder cannot be written.
    """
    weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    with written(folder / WEIGHTS) as path:
        safetensors.torch.save_file(weights, path, {"format": "pt"} | provenance.metadata(license))
    with written(folder / CONFIG) as path:
        path.write_text(json.dumps(_config(provenance, license), indent=2) + "\n", encoding="utf-8")
    with written(folder / CARD) as path:
        path.write_text(model_card(provenance, name, license, _millions(model)), encoding="utf-8")
    return [folder / CONFIG, folder / WEIGHTS, folder / CARD]


def _config(provenance: Provenance, license: str) -> dict[str, Any]:
    network = provenance.network
    return {
        "library_name": "arcdist",
        "arcdist_version": arcdist.__version__,
        "backbone": network.backbone,
        "embedding_dim": network.embedding_dim,
        "image_size": network.image_size,
        "color": "RGB",
        "mean": MEAN,
        "std": STD,
        "template": provenance.template(),
        "license": license,
    }


def _millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6
