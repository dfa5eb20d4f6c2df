"""Vision transformers over 12 × 12 patches of 9 pixels, with the keys and shapes of insightface's arcface_torch."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.backbones.forward import run_blocks, run_last_layers
from arcdist.backbones.registry import register_backbone
from arcdist.errors import ConfigError

_PATCH_PX = 9
_PATCHES = (112 // _PATCH_PX) ** 2  # the last 4 pixels of each row and column are in no patch
_HEADS = 8


class Attention(nn.Module):
    """Self-attention of 8 heads; arcface_torch takes its softmax in float32, here the fused kernel does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, tokens, width]``."""
        b, tokens, width = x.shape
        # [b, tokens, 3·width] → 3 × [b, heads, tokens, width/heads]
        query, key, value = self.qkv(x).view(b, tokens, 3, _HEADS, width // _HEADS).permute(2, 0, 3, 1, 4).unbind()
        x = F.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(b, tokens, width))


class TransformerBlock(nn.Module):
    """Attention and a ReLU6 perceptron, each after a LayerNorm, beside a shortcut, and skipped at the given rate."""

    def __init__(self, width: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.ReLU6(), fc2=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, tokens, width]``."""
        x = x + self._sometimes(self.attn(self.norm1(x)))
        return x + self._sometimes(self.mlp(self.norm2(x)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        """Return the branch, zeroed for a random share of the batch's rows in training and scaled up in the others."""
        if not self.training or self.drop_path == 0.0:
            return branch
        kept_share = 1.0 - self.drop_path
        return branch * branch.new_empty(len(branch), 1, 1).bernoulli_(kept_share).div_(kept_share)


class VisionTransformer(nn.Module):
    """Patches, position embeddings, blocks, LayerNorm; then all tokens side by side through two full connections.

    In training a random choice of patches, other for each image, is left out of the blocks; a learned token stands in
    their places before the full connections.

    Args:
        width: length of a token.
        depth: number of blocks.
        embedding_dim: ``D``.
        drop_path: how often a row skips the last block's branches; earlier blocks' rates fall linearly to 0.
        mask_ratio: share of the patches left out in training. arcface_torch always leaves out 0.1 where its
            configuration says more than 0, and so it trained its ``…_mask_005``; here the ratio is what it says.
        checkpoint_activations: see ``run_blocks``.

    Errors: ConfigError for a ratio that leaves no patch.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        embedding_dim: int = 512,
        drop_path: float = 0.0,
        mask_ratio: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.tokens_kept = int(_PATCHES * (1.0 - mask_ratio))
        if self.tokens_kept < 1:
            most = math.floor(1000 * (1 - 1 / _PATCHES)) / 1000
            raise ConfigError(f"backbone.mask_ratio: {mask_ratio}: hides all {_PATCHES} patches; {most} leaves one")
        self.pos_embed = nn.Parameter(torch.empty(1, _PATCHES, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width), requires_grad=mask_ratio > 0.0)
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, _PATCH_PX, stride=_PATCH_PX)))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, drop_path * index / max(depth - 1, 1)) for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(_PATCHES * width, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=2e-5),
        )

        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``[b, D]``, not normalized, of images ``[b, 3, 112, 112]`` in [-1, 1]."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        if self.training and self.tokens_kept < _PATCHES:
            order = torch.rand(x.shape[:2], device=x.device).argsort(dim=1)
            kept = order[:, : self.tokens_kept, None].expand(-1, -1, x.shape[2])
            seen = self.norm(self._run_blocks(x.gather(1, kept)))
            x = self.mask_token.to(seen.dtype).expand_as(x).scatter(1, kept, seen)
        else:
            x = self.norm(self._run_blocks(x))
        return run_last_layers((self.feature,), x.flatten(1))

    def _run_blocks(self, x: Tensor) -> Tensor:
        return run_blocks(self.blocks, x, self.checkpoint_activations and self.training)


for _name, _width, _depth, _drop_path, _mask_ratio in (
    ("vit_t", 256, 12, 0.1, 0.1),
    ("vit_t_dp005_mask0", 256, 12, 0.05, 0.0),
    ("vit_s", 512, 12, 0.1, 0.1),
    ("vit_s_dp005_mask_0", 512, 12, 0.05, 0.0),
    ("vit_b", 512, 24, 0.1, 0.1),
    ("vit_b_dp005_mask_005", 512, 24, 0.05, 0.05),
    ("vit_l_dp005_mask_005", 768, 24, 0.05, 0.05),
    ("vit_h", 1024, 48, 0.1, 0.0),
):
    register_backbone(_name, width=_width, depth=_depth, drop_path=_drop_path, mask_ratio=_mask_ratio)(
        VisionTransformer
    )
