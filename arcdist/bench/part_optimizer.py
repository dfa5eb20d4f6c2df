"""The update of a net's weights: torch's plain loop, its foreach, and ours, which is a fused one."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from arcdist.backbones import create_backbone
from arcdist.bench.part import Part, PartCase, PartMethod, flat, relative_error
from arcdist.optim.optimizers import OptimConfig

_PROCESS_MIB = 600
_MIB = 2**20
_CHECKED_STEPS = 3
_COPIES = {"sgd": 5, "adamw": 7}  # of the weights, that a step reads or writes: weight, gradient, state

_Make = Callable[[nn.Module, OptimConfig], Optimizer]


class _Update:
    """A net's weights with gradients drawn by a seed, and their optimizer."""

    def __init__(self, case: PartCase, make: _Make) -> None:
        torch.manual_seed(0)
        self._net = create_backbone(case.net, case.embedding_dim).to(case.device)
        self._config = OptimConfig(name=case.what, lr=0.01, decay_all=True)
        self._parameters = [*self._net.parameters()]
        for parameter in self._parameters:
            parameter.grad = torch.randn_like(parameter)
        self._optimizer = make(self._net, self._config)

    def prepare(self) -> None:
        """Leave everything as it is: gradients stay."""

    def step(self) -> None:
        self._optimizer.step()

    def error(self) -> float:
        before = flat([*self._parameters])
        gradient = flat([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        expected = written_out(self._config, before, gradient, _CHECKED_STEPS)
        for _ in range(_CHECKED_STEPS):
            self.step()
        return relative_error(flat([*self._parameters]) - before, expected - before)


def written_out(config: OptimConfig, weights: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """Return the weights ``[n]`` after so many steps of the same gradient, as the papers write SGD and AdamW."""
    lr, decay = config.lr, config.weight_decay
    first = second = torch.zeros_like(weights)
    for step in range(1, steps + 1):
        if config.name == "sgd":
            first = config.momentum * first + gradient + decay * weights
            weights = weights - lr * first
            continue
        first = config.beta1 * first + (1 - config.beta1) * gradient
        second = config.beta2 * second + (1 - config.beta2) * gradient**2
        size = (second / (1 - config.beta2**step)).sqrt() + 1e-8
        weights = (1 - lr * decay) * weights - lr * first / (1 - config.beta1**step) / size
    return weights


def _of_torch(foreach: bool) -> _Make:
    def make(net: nn.Module, config: OptimConfig) -> Optimizer:
        if config.name == "sgd":
            momentum, decay = config.momentum, config.weight_decay
            return SGD(net.parameters(), config.lr, momentum, weight_decay=decay, foreach=foreach)
        betas, decay = (config.beta1, config.beta2), config.weight_decay
        return AdamW(net.parameters(), config.lr, betas, weight_decay=decay, foreach=foreach)

    return make


def _ours(net: nn.Module, config: OptimConfig) -> Optimizer:
    no_centers = nn.Parameter(torch.zeros(0, 1, device=next(net.parameters()).device))
    return config.build(net, no_centers)


def _method(name: str, make: _Make) -> PartMethod:
    return PartMethod(
        name, lambda case: _Update(case, make), 1e-3, lambda case: _PROCESS_MIB + 6 * weights_bytes(case) / _MIB
    )


_METHODS = (_method("loop", _of_torch(False)), _method("foreach", _of_torch(True)), _method("ours_fused", _ours))


def weights_bytes(case: PartCase) -> int:
    """Return the bytes of a net's weights in float32."""
    return 4 * sum(sizes_of(case.net, case.embedding_dim))


@cache
def sizes_of(net: str, embedding_dim: int) -> tuple[int, ...]:
    """Return the number of elements of each of a net's weights."""
    with torch.device("meta"):
        return tuple(parameter.numel() for parameter in create_backbone(net, embedding_dim).parameters())


OPTIMIZER_PART = Part(
    methods=lambda what: _METHODS,
    moved=lambda case: _COPIES[case.what] * weights_bytes(case),
    operations=lambda case: 0,
    rate="in_place_gb_per_s",
)
