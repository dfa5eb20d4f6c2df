"""Weights of backbones that other projects have written: insightface's ``.pt`` and ``.pth``, and safetensors."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from arcdist.errors import DataError
from arcdist.runtime.torch_files import read_torch

_WRAPPERS = ("state_dict_backbone", "state_dict", "backbone", "model")  # the first: arcface_torch's checkpoint_gpu_0.pt
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "net.")  # of DDP, torch.compile, a trainer, CVLface
_SHOWN = 3

# What tells the published backbones apart: the stem's channels, the number of blocks, the width.
_IRESNETS = {
    (64, 2, 2, 2, 2): "r18",
    (64, 3, 4, 6, 3): "r34",
    (64, 3, 4, 14, 3): "r50",
    (64, 3, 13, 30, 3): "r100",
    (64, 6, 26, 60, 6): "r200",
}
_VITS = {
    (256, 12): "vit_t",
    (512, 12): "vit_s",
    (512, 24): "vit_b",
    (768, 24): "vit_l_dp005_mask_005",
    (1024, 48): "vit_h",
}
_SMALL = {48: "small", 32: "tiny"}
_MOBILEFACENETS = {128: "mbf", 256: "mbf_large"}


def load_backbone_weights(path: str | Path, model: nn.Module) -> None:
    """Copy the weights of a file into the model, which must have exactly its keys and shapes.

    Args:
        path: what ``read_weights`` reads.
        model: a backbone, without DDP or compilation around it; keeps its own dtype and device.

    Errors: DataError if a key is missing or left over or has another shape, with the backbone that the file looks like.
    """
    weights = read_weights(path)
    expected = model.state_dict()
    other_shapes = [
        f"{key} {list(weights[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    faults = [
        *_listed("missing", [key for key in expected if key not in weights]),
        *_listed("unknown here", [key for key in weights if key not in expected]),
        *_listed("of another shape", other_shapes),
    ]
    if faults:
        raise DataError(f"{path}: weights of another backbone; {'; '.join(faults)}; {_resemblance(weights)}")
    model.load_state_dict(weights)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the backbone's tensors by key, on the CPU.

    Reads a ``.safetensors`` file, or what ``torch.save`` wrote of a ``state_dict``, alone or as an entry of a training
    checkpoint. Prefixes that wrappers put before every key are taken off.

    Errors: DataError for a file that is absent, damaged, or of another kind. A pickle that would run code is refused.
    """
    path = Path(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path}: holds {type(content).__name__}, not the state_dict of a backbone")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DataError(
                f"{path}: entry {key!r} is of type {type(value).__name__}, not a tensor; a state_dict is read, alone "
                f"or under one of {', '.join(_WRAPPERS)}"
            )
    weights = dict(content)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file ({error})") from error


def _listed(what: str, keys: list[str]) -> Iterable[str]:
    """Yield a phrase with the first few keys, or nothing if there are none."""
    if keys:
        more = ", …" if len(keys) > _SHOWN else ""
        yield f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{more}"


def _resemblance(weights: Mapping[str, Tensor]) -> str:
    """Return which backbone the keys and shapes speak of."""
    weights = {key: tensor for key, tensor in weights.items() if tensor.ndim}  # a scalar is no layer's weight
    if {"conv1.weight", "conv2.weight", "layer3.0.conv1.weight", "fc.weight"} <= weights.keys():
        width, last = len(weights["conv2.weight"]), weights["fc.weight"]
        name = _SMALL.get(width, f"a small net with a stem of {width} channels")
    elif {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"} <= weights.keys():
        width, last = len(weights["conv1.weight"]), weights["fc.weight"]
        blocks = tuple(_count(weights, rf"layer{layer}\.(\d+)\.") for layer in (1, 2, 3, 4))
        name = _IRESNETS.get((width, *blocks), f"an iResNet with a stem of {width} channels and {blocks} blocks")
    elif {"layers.0.layers.0.weight", "features.layers.2.weight"} <= weights.keys():
        width, last = len(weights["layers.0.layers.0.weight"]), weights["features.layers.2.weight"]
        name = _MOBILEFACENETS.get(width, f"a MobileFaceNet with a stem of {width} channels")
    elif {"pos_embed", "feature.2.weight"} <= weights.keys():
        width, last = weights["pos_embed"].shape[-1], weights["feature.2.weight"]
        depth = _count(weights, r"blocks\.(\d+)\.")
        name = _VITS.get((width, depth), f"a ViT of width {width} and depth {depth}")
    elif "input_layer.0.weight" in weights:
        return "they are in face.evoLVe's layout of an iResNet, whose blocks are others"
    else:
        return "they resemble no backbone that is known here"
    return f"they look like {name} with embedding_dim={len(last)}"


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many numbers the pattern finds at the beginning of keys."""
    return len({found[1] for key in weights if (found := re.match(pattern, key))})
