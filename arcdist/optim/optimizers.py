"""SGD and AdamW, with weight decay where the field's recipes want it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from arcdist.errors import ConfigError
from arcdist.optim.center_updates import CenterUpdate, check_undrawn
from arcdist.optim.schedules import ScheduleConfig
from arcdist.runtime.fully_sharded import own_parameter

OPTIMIZERS = ("sgd", "adamw")


@dataclass
class OptimConfig:
    """The optimizer of backbone and centers."""

    name: str = field(default="sgd", metadata={"help": "sgd | adamw"})
    lr: float = field(default=0.1, metadata={"help": "peak learning rate, for the global batch as it is"})
    momentum: float = field(default=0.9, metadata={"help": "of sgd"})
    nesterov: bool = field(default=False, metadata={"help": "of sgd"})
    beta1: float = field(default=0.9, metadata={"help": "of adamw"})
    beta2: float = field(default=0.999, metadata={"help": "of adamw"})
    weight_decay: float = field(default=5e-4, metadata={"help": "of weights and centers"})
    decay_all: bool = field(
        default=False, metadata={"help": "decay biases, normalization and PReLU slopes too, as arcface_torch does"}
    )
    lr_scales: list[str] = field(
        default_factory=list,
        metadata={"help": "learning rates of parts of the backbone, as multiples of lr: [layer1:0.1,layer2:0.3]"},
    )
    centers_lr: float = field(default=1.0, metadata={"help": "learning rate of the centers, as a multiple of lr"})
    undrawn: str = field(
        default="auto",
        metadata={
            "help": "auto | frozen | dense, what becomes of centers that a step does not draw (head.sample_rate < 1): "
            "nothing, or what momentum and decay do (auto: dense with sgd; always with head.update=separate)"
        },
    )
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.name not in OPTIMIZERS:
            raise ConfigError(f"optim.name: {self.name!r}: must be one of {', '.join(OPTIMIZERS)}")
        for name in ("lr", "centers_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name}: {getattr(self, name)}: must be above 0, and finite")
        self.scales_of_parts()
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name}: {getattr(self, name)}: must be in [0, 1)")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optim.nesterov: true: needs optim.momentum above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"optim.weight_decay: {self.weight_decay}: must be 0 or above, and finite")
        if self.undrawn != "auto":
            check_undrawn(self.undrawn, self.name)
        self.schedule.validate()

    def scales_of_parts(self) -> dict[str, float]:
        """Return ``lr_scales`` by part.

        Errors: ConfigError for one that is not PART:NUMBER, whose number is not above 0, or whose part has one already.
        """
        scales: dict[str, float] = {}
        for item in self.lr_scales:
            part, _, number = item.partition(":")
            if part in scales:
                raise ConfigError(f"optim.lr_scales: {item}: {part} has {scales[part]:g} already; give each part once")
            try:
                scales[part] = float(number)
            except ValueError:
                raise ConfigError(f"optim.lr_scales: {item!r}: must be PART:NUMBER, such as layer1:0.1") from None
            if not 0 < scales[part] < math.inf:
                raise ConfigError(f"optim.lr_scales: {item}: must be above 0, and finite; backbone.frozen trains none")
        return scales

    def center_update(
        self, optimizer: torch.optim.Optimizer, centers: nn.Parameter, first_row: int, seed: int
    ) -> CenterUpdate:
        """Return the centers' part of a step of ``optimizer``, block by block; arguments as for ``CenterUpdate``."""
        auto = "dense" if self.name == "sgd" else "frozen"
        undrawn = auto if self.undrawn == "auto" else self.undrawn
        return CenterUpdate(optimizer, centers, undrawn, first_row, seed)

    def build(self, backbone: nn.Module, centers: nn.Parameter) -> torch.optim.Optimizer:
        """Return the optimizer; its state is there before the first step, so every checkpoint has the same keys.

        It is a fused one: those take a tensor ``found_inf`` that makes a step void without the host's waiting for it.
        """
        self.validate()
        groups = parameter_groups(backbone, centers, self)
        if self.name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), fused=True)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter] = self._initial_state(parameter)
        return optimizer

    def _initial_state(self, parameter: nn.Parameter) -> dict[str, Any]:
        if self.name == "adamw":
            return {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return {"momentum_buffer": torch.zeros_like(parameter)} if self.momentum else {}


def parameter_groups(backbone: nn.Module, centers: nn.Parameter, config: OptimConfig) -> list[dict[str, Any]]:
    """Return the groups: decayed weights, what is not decayed (vectors and scalars), centers.

    Each has ``lr_scale``, its learning rate as a multiple of ``config.lr``; parts of the backbone that have another one
    are groups of their own. A parameter of several such parts has that of the innermost.

    Errors: ConfigError for a part that the backbone does not have.
    """
    scale_of = dict.fromkeys((p for p in backbone.parameters() if p.requires_grad), 1.0)
    for part, lr_scale in sorted(config.scales_of_parts().items(), key=lambda item: item[0].count(".")):
        inside = [parameter for name, parameter in backbone.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if not inside:
            known = dict.fromkeys(name.partition(".")[0] for name, _ in backbone.named_parameters())
            raise ConfigError(f"optim.lr_scales: {part!r}: no part of this backbone (its parts: {', '.join(known)})")
        scale_of |= {parameter: lr_scale for parameter in inside if parameter in scale_of}

    def group(parameters: Iterable[nn.Parameter], weight_decay: float, lr_scale: float = 1.0) -> dict[str, Any]:
        return {"params": list(parameters), "weight_decay": weight_decay, "lr_scale": lr_scale}

    plain_decay = config.weight_decay if config.decay_all else 0.0
    groups = []
    for scale in dict.fromkeys(scale_of.values()):
        trained = [parameter for parameter, own in scale_of.items() if own == scale]
        groups.append(group((p for p in trained if p.ndim > 1), config.weight_decay, scale))
        groups.append(group((p for p in trained if p.ndim <= 1), plain_decay, scale))
    for one in groups:
        one["params"] = [own_parameter(parameter) for parameter in one["params"]]
    groups.append(group([centers], config.weight_decay, config.centers_lr))
    return [one for one in groups if one["params"]]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
