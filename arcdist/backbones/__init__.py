"""Backbones by name: aligned faces in, embeddings out.

Every backbone takes float images ``[b, 3, 112, 112]`` (RGB, in [-1, 1]) and returns embeddings ``[b, D]`` that are not
normalized: some margins need the norm.
"""

from arcdist.backbones import iresnet, mobilefacenet, small, vit  # noqa: F401 (each registers its names)
from arcdist.backbones.registry import (
    BackboneConfig,
    backbone_names,
    create_backbone,
    register_backbone,
    takes_any_size,
)
from arcdist.backbones.trained import load_backbone

__all__ = [
    "BackboneConfig",
    "backbone_names",
    "create_backbone",
    "load_backbone",
    "register_backbone",
    "takes_any_size",
]
