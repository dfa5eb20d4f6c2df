"""A residual network for CPUs, a quarter of the resolution from the stem on; and two small iResNets."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.backbones.convolution import Conv2d
from arcdist.backbones.forward import flatten_map, run_blocks, run_last_layers
from arcdist.backbones.iresnet import IResNet
from arcdist.backbones.registry import register_backbone

_SIDE = 7  # of the last feature map, for images of 112 pixels


class SmallBlock(nn.Module):
    """3×3 with the stride, BN, ReLU, 3×3, BN; plus the shortcut, without an activation after the sum.

    An iResNet block without its first BatchNorm, with ReLU for PReLU, whose backward pass is bound by memory on a CPU,
    and with the stride in the first convolution, so that a block that halves the resolution costs half as much.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, channels, H/stride, W/stride]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(y)) + self.downsample(x)


class SmallResNet(nn.Module):
    """A stem of two convolutions with stride 2, three layers at 28, 14 and 7 pixels, BN, a full connection and BN.

    Smaller images, too, become embeddings, for a cheap first part of a training: their last feature map is enlarged to
    the one that the full connection knows.

    Args:
        blocks: number of blocks of each layer.
        widths: channels of each layer; the stem's first convolution has 16.
        embedding_dim: ``D``.
        checkpoint_activations: see ``run_blocks``.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 256,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.conv1 = nn.Conv2d(3, 16, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, widths[0], 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _layer(widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _layer(widths[0], widths[1], blocks[1], stride=2)
        self.layer3 = _layer(widths[1], widths[2], blocks[2], stride=2)
        self.bn3 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2] * _SIDE * _SIDE, embedding_dim, bias=False)
        self.features = nn.BatchNorm1d(embedding_dim)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``[b, D]``, not normalized, of images ``[b, 3, H, W]`` in [-1, 1], such as 112 by 112."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        blocks = [*self.layer1, *self.layer2, *self.layer3]
        x = self.bn3(run_blocks(blocks, x, self.checkpoint_activations and self.training))
        if x.shape[-2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear")
        return run_last_layers((self.fc, self.features), flatten_map(x))


def _layer(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Return a layer whose first block has the stride and the change of width."""
    return nn.Sequential(
        SmallBlock(channels_in, channels, stride), *(SmallBlock(channels, channels, 1) for _ in range(blocks - 1))
    )


register_backbone("small", any_size=True, blocks=(1, 1, 1), widths=(48, 96, 192))(SmallResNet)
register_backbone("tiny", any_size=True, blocks=(1, 1, 1), widths=(32, 64, 128))(SmallResNet)

# iResNets for CPUs: narrow, and of stride 2 from the stem on.
_IRESNET_WIDTHS = (32, 64, 128, 160)
register_backbone("small_deep", blocks=(2, 4, 6, 2), widths=_IRESNET_WIDTHS, stem_stride=2)(IResNet)
register_backbone("small_thin", blocks=(1, 1, 1, 1), widths=(16, 32, 64, 80), stem_stride=2)(IResNet)
