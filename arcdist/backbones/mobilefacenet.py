"""MobileFaceNet (Chen et al. 2018), with the keys and shapes of insightface's arcface_torch.

Twice (``mbf``) or four times (``mbf_large``) as wide as the paper's between the bottlenecks, equally wide within.
"""

from torch import Tensor, nn

from arcdist.backbones.forward import run_blocks, run_last_layers
from arcdist.backbones.grouped import GroupedConv2d
from arcdist.backbones.prelu import PReLU
from arcdist.backbones.registry import register_backbone


class Layers(nn.Module):
    """A sequence under the key ``layers``, which is how the published weights name every level."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last layer gives."""
        return self.layers(x)


class Residual(Layers):
    """A sequence with a shortcut around it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + layers(x)``."""
        return x + self.layers(x)


class MobileFaceNet(nn.Module):
    """Bottlenecks at 56², 28², 14² and 7² pixels, then a global depthwise convolution and a full connection.

    Args:
        blocks: number of blocks at each resolution; a 1 at the first is a grouped convolution, not a bottleneck.
        widening: channels between the bottlenecks, over the paper's 64 and 128.
        embedding_dim: ``D``.
        checkpoint_activations: see ``run_blocks``.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        widening: int,
        embedding_dim: int = 512,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        narrow, wide = 64 * widening, 128 * widening
        first = _convolution(narrow, narrow, 3, groups=64) if blocks[0] == 1 else _stage(narrow, 128, blocks[0])
        self.layers = nn.ModuleList(
            [
                _convolution(3, narrow, 3, stride=2),
                first,
                Layers(*_bottleneck(narrow, narrow, 128, stride=2)),
                _stage(narrow, 128, blocks[1]),
                Layers(*_bottleneck(narrow, wide, 256, stride=2)),
                _stage(wide, 256, blocks[2]),
                Layers(*_bottleneck(wide, wide, 512, stride=2)),
                _stage(wide, 256, blocks[3]),
            ]
        )
        self.conv_sep = _convolution(wide, 512, 1)
        self.features = Layers(
            Layers(nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512)),
            nn.Flatten(),
            nn.Linear(512, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim),
        )

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``[b, D]``, not normalized, of images ``[b, 3, 112, 112]`` in [-1, 1]."""
        x = run_blocks(self.layers, images, self.checkpoint_activations and self.training)
        return run_last_layers((self.conv_sep, self.features), x)


def _convolution(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Layers:
    return Layers(
        GroupedConv2d(channels_in, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        PReLU(channels),
    )


def _bottleneck(channels_in: int, channels: int, inner: int, stride: int) -> list[nn.Module]:
    """Return 1×1, 3×3 depthwise, 1×1; the last, linear: no activation follows it."""
    return [
        _convolution(channels_in, inner, 1),
        _convolution(inner, inner, 3, stride, groups=inner),
        Layers(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)),
    ]


def _stage(channels: int, inner: int, blocks: int) -> Layers:
    return Layers(*(Residual(*_bottleneck(channels, channels, inner, stride=1)) for _ in range(blocks)))


register_backbone("mbf", blocks=(1, 4, 6, 2), widening=2)(MobileFaceNet)
register_backbone("mbf_large", blocks=(2, 8, 12, 4), widening=4)(MobileFaceNet)
