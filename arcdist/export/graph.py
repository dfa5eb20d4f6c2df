"""A backbone with what stands before and after it where it is used: pixels to embeddings in one graph."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from arcdist.backbones.onnx_net import PIXELS
from arcdist.errors import ConfigError
from arcdist.export.provenance import MEAN, STD


@dataclass(frozen=True)
class GraphConfig:
    """What a graph takes and gives."""

    input: str = "normalized"
    """One of ``PIXELS``."""
    normalize: bool = False
    """Whether embeddings have length 1."""
    image_size: int = 112
    """Height and width in pixels."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.input not in PIXELS:
            told = "; ".join(f"{name}: {meaning}" for name, meaning in PIXELS.items())
            raise ConfigError(f"input: {self.input!r}: must be one of {', '.join(PIXELS)} ({told})")
        if not 16 <= self.image_size <= 1024:
            raise ConfigError(f"image_size: {self.image_size}: must be from 16 to 1024")

    def takes(self, pixels: Tensor) -> Tensor:
        """Return images as the graph takes them, of pixels as decoders give them: uint8 ``[b, H, W, 3]``."""
        if self.input == "uint8":
            return pixels
        planes = pixels.permute(0, 3, 1, 2).float().contiguous()
        return planes if self.input == "float" else (planes - MEAN) / STD

    def noise(self, count: int) -> Tensor:
        """Return random images as the graph takes them, the same ones at every call."""
        shape, generator = (count, self.image_size, self.image_size, 3), torch.Generator().manual_seed(count)
        return self.takes(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


class Graph(nn.Module):
    """A backbone from pixels on.

    Args:
        backbone: ``[b, 3, H, W]`` in [-1, 1] to ``[b, D]``.
        config: which pixels it takes, and whether its embeddings get length 1.
    """

    def __init__(self, backbone: nn.Module, config: GraphConfig) -> None:
        super().__init__()
        config.validate()
        self.backbone, self.config = backbone, config

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``[b, D]``."""
        if self.config.input == "uint8":
            images = images.permute(0, 3, 1, 2).float()
        if self.config.input != "normalized":
            images = (images - MEAN) / STD
        embeddings = self.backbone(images)
        # F.normalize, without its traces of shapes in the graph.
        return (
            embeddings / embeddings.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.config.normalize else embeddings
        )


def trace(graph: Graph) -> ExportedProgram:
    """Return the graph as a program of torch, of any batch size, in eval mode.

    Cost: seconds; memory of a forward pass of two images.
    """
    graph.eval()
    with torch.no_grad():
        program = torch.export.export(graph, (graph.config.noise(2),), dynamic_shapes=({0: Dim.DYNAMIC},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program
