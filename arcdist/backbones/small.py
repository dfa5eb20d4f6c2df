"""iResNets for CPUs: narrow, and of stride 2 from the stem on."""

from arcdist.backbones.iresnet import IResNet
from arcdist.backbones.registry import register_backbone

_WIDTHS = (32, 64, 128, 160)

register_backbone("small", blocks=(1, 2, 2, 1), widths=_WIDTHS, stem_stride=2)(IResNet)
register_backbone("small_deep", blocks=(2, 4, 6, 2), widths=_WIDTHS, stem_stride=2)(IResNet)
register_backbone("small_thin", blocks=(1, 1, 1, 1), widths=(16, 32, 64, 80), stem_stride=2)(IResNet)
