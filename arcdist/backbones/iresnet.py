"""iResNet: the residual network of the ArcFace paper, with the keys and shapes of insightface's arcface_torch."""

from torch import Tensor, nn

from arcdist.backbones.convolution import Conv2d
from arcdist.backbones.forward import flatten_map, run_blocks, run_last_layers
from arcdist.backbones.prelu import PReLU
from arcdist.backbones.registry import register_backbone


class ResidualBlock(nn.Module):
    """BN, 3×3, BN, PReLU, 3×3 with the stride, BN; plus the shortcut, without an activation after the sum.

    The "improved residual unit" of ArcFace (Deng et al. 2019, section 3.1).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, channels, H/stride, W/stride]``."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


class IResNet(nn.Module):
    """A stem that keeps the resolution, four layers that halve it, then BN, dropout, a full connection and BN.

    The last BatchNorm's gamma stays 1 (``fix_gamma`` of the MXNet original): the margin fixes the scale.

    Args:
        blocks: number of blocks of each layer.
        embedding_dim: ``D``.
        widths: channels of each layer; the stem has those of the first.
        stem_stride: 2 makes everything after the stem four times cheaper.
        dropout: share of the last feature map that is dropped in training; the paper has 0.4, arcface_torch 0.
        checkpoint_activations: see ``run_blocks``.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        embedding_dim: int = 512,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        stem_stride: int = 1,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.conv1 = nn.Conv2d(3, widths[0], 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = PReLU(widths[0])
        self.layer1 = _layer(widths[0], widths[0], blocks[0])
        self.layer2 = _layer(widths[0], widths[1], blocks[1])
        self.layer3 = _layer(widths[1], widths[2], blocks[2])
        self.layer4 = _layer(widths[2], widths[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.dropout = nn.Dropout(dropout)
        side = -(-112 // (stem_stride * 16))
        self.fc = nn.Linear(widths[3] * side * side, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad_(False)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``[b, D]``, not normalized, of images ``[b, 3, 112, 112]`` in [-1, 1]."""
        x = self.prelu(self.bn1(self.conv1(images)))
        blocks = [*self.layer1, *self.layer2, *self.layer3, *self.layer4]
        x = run_blocks(blocks, x, self.checkpoint_activations and self.training)
        x = self.dropout(flatten_map(self.bn2(x)))
        return run_last_layers((self.fc, self.features), x)


def _layer(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
    """Return a layer whose first block halves the resolution."""
    return nn.Sequential(
        ResidualBlock(channels_in, channels, stride=2),
        *(ResidualBlock(channels, channels, stride=1) for _ in range(blocks - 1)),
    )


for _name, _blocks in {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 14, 3),
    "r100": (3, 13, 30, 3),
    "r200": (6, 26, 60, 6),
}.items():
    register_backbone(_name, blocks=_blocks)(IResNet)
