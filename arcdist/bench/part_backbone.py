"""Forward and backward pass of a backbone, ours and as arcface_torch runs it, by precision."""

from functools import cache

import torch
from torch import Tensor, nn

from arcdist.backbones import create_backbone
from arcdist.bench.part import Part, PartCase, PartMethod, flat, relative_error
from arcdist.bench.whole_steps import with_layers_of_torch
from arcdist.runtime.float32_products import choose_library
from arcdist.runtime.precision import autocast
from arcdist.train.work import forward_flops

_SIZE = 112  # pixels
_PROCESS_MIB, _IMAGE_MIB = 600, 40
_PASSES = 3  # products of forward and backward pass, in those of the forward pass


class _Passes:
    """A backbone and a batch; the gradient that comes back to it is as the images, drawn by a seed."""

    def __init__(self, case: PartCase, precision: str, plain: bool) -> None:
        self._case, self._precision, self._device = case, precision, torch.device(case.device)
        if self._device.type == "cpu":
            choose_library("blas" if plain else "auto")
        self._backbone = _net(case).to(self._device)
        images, gradient = _batch(case)
        layout = torch.contiguous_format if plain else torch.channels_last
        if plain:
            with_layers_of_torch(self._backbone)
        self._backbone = self._backbone.to(memory_format=layout)  # ty: ignore[no-matching-overload]
        self._images = images.to(self._device).contiguous(memory_format=layout)
        self._gradient = gradient.to(self._device)

    def prepare(self) -> None:
        self._backbone.zero_grad(set_to_none=True)

    def step(self) -> None:
        self._pass()

    def error(self) -> float:
        self.prepare()
        found = self._pass(), _gradients(self._backbone)
        return max(relative_error(a, b) for a, b in zip(found, _in_float64(self._case), strict=True))

    def _pass(self) -> Tensor:
        with autocast(self._precision, self._device):
            embeddings = self._backbone(self._images)
        embeddings.float().backward(self._gradient)
        return embeddings


def _net(case: PartCase) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(case.net, case.embedding_dim)


def _batch(case: PartCase) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(case.rows, 3, _SIZE, _SIZE, generator=draws) * 2 - 1
    return images, torch.randn(case.rows, case.embedding_dim, generator=draws)


@cache
def _in_float64(case: PartCase) -> tuple[Tensor, Tensor]:
    """Return embeddings and the gradient of all weights, by torch's own layers in float64."""
    backbone = _net(case)
    with_layers_of_torch(backbone)
    images, gradient = _batch(case)
    embeddings = backbone.double()(images.double())
    embeddings.backward(gradient.double())
    return embeddings.detach(), _gradients(backbone)


def _gradients(backbone: nn.Module) -> Tensor:
    return flat([parameter.grad for parameter in backbone.parameters() if parameter.grad is not None])


def _method(name: str, precision: str, plain: bool) -> PartMethod:
    return PartMethod(
        name,
        lambda case: _Passes(case, precision, plain),
        1e-2 if precision == "fp32" else 0.5,  # of rounding alone, mbf has 3e-3 and 0.3
        lambda case: _PROCESS_MIB + _IMAGE_MIB * case.rows,
        precision,
    )


_METHODS = tuple(
    _method(f"{name}_{precision}", precision, name == "plain")
    for precision in ("fp32", "bf16")
    for name in ("plain", "ours")
)


@cache
def _operations(net: str, embedding_dim: int) -> float:
    return _PASSES * forward_flops(create_backbone(net, embedding_dim), _SIZE)


BACKBONE_PART = Part(
    methods=lambda what: _METHODS,
    moved=lambda case: 0,
    operations=lambda case: case.rows * _operations(case.net, case.embedding_dim),
)
