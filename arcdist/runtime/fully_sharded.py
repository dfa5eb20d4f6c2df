"""Modules of whose weights every rank holds a part (torch's FSDP2), and what needs them whole.

Weights are gathered and gradients reduced unit by unit: a repeated block is one; so is a layer that is larger than a
block, as the first full connection after the blocks often is; and what is left over. A block's weights are gathered as
its forward pass begins and let go after it, and again for its backward pass. Those of the other units stay until they
have their gradients. They travel in float32, and autocast narrows them where they are used; the narrow copies stay for
the backward pass, unless it computes activations again.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.groups import rank_mesh

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_OWN = "own_part"  # attribute of a sharded parameter
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class FullyShardedConfig:
    """How ranks share out the backbone's weights (torch's FSDP2)."""

    gradients: str = field(default="fp32", metadata={"help": "fp32 | bf16 | fp16, what ranks send of gradients"})
    reshard: bool = field(
        default=True,
        metadata={"help": "let a block's weights go after its forward pass, and gather them for its backward pass"},
    )
    group_size: int = field(
        default=0,
        metadata={"help": "neighboring ranks that share out the weights, such as those of a node; 0: all ranks"},
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.gradients not in _DTYPES:
            raise ConfigError(f"train.fsdp.gradients: {self.gradients!r}: must be one of {', '.join(_DTYPES)}")
        if self.group_size < 0 or self.group_size == 1:
            raise ConfigError(
                f"train.fsdp.group_size: {self.group_size}: must be 0 (all ranks) or at least 2; a rank that holds all "
                "weights is train.parallel=ddp"
            )

    def shard(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return the module with its parameters made DTensors, in place; as it is where there is one rank.

        Its own calls then gather what they need, so all ranks make them alike.

        Args:
            module: alike on every rank, its weights contiguous; one that has not been sharded.
            device: of this rank.

        Errors: ConfigError where the ranks cannot be parted into groups of ``group_size``.
        Communication: of a step, an all-gather of each block's weights before each of its passes (the backward one
            only if ``reshard``), and a reduce-scatter of its gradients; over groups, an all-reduce of the latter.
        """
        mesh = rank_mesh(self.group_size, device.type, "train.fsdp.group_size")
        if collectives.world_size() == 1:
            return module
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # a second to import

        # Parameters of the copy are without memory; its buffers are real, for some are in no state_dict.
        without = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
        plain = copy.deepcopy(module, without)
        policy = MixedPrecisionPolicy(reduce_dtype=_DTYPES[self.gradients], cast_forward_inputs=False)
        blocks = repeated_blocks(module)
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard, mp_policy=policy)
        for other in (*large_layers(module, blocks), module):
            fully_shard(other, mesh=mesh, reshard_after_forward=False, mp_policy=policy)
        for parameter in module.parameters():
            setattr(parameter, _OWN, nn.Parameter(part_of(parameter.detach()), parameter.requires_grad))
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_share_gradient)
        _ORIGINS[module] = _Origin(plain, self, device)
        return module


@dataclass(frozen=True)
class _Origin:
    """What a module was before it was sharded, its parameters without memory, and how it was sharded."""

    plain: nn.Module
    config: FullyShardedConfig
    device: torch.device


_ORIGINS: "WeakKeyDictionary[nn.Module, _Origin]" = WeakKeyDictionary()


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts that a module repeats: those of one class and of several layers in one list, none in another."""
    found: list[nn.Module] = []
    for parent in module.modules():
        if isinstance(parent, nn.ModuleList | nn.Sequential) and not any(parent in block.modules() for block in found):
            kinds = Counter(type(child) for child in parent)
            found += [child for child in parent if kinds[type(child)] > 1 and any(child.children())]
    return found


def large_layers(module: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the layers in no block with more parameters than any block; than a quarter of all, where none repeats."""
    largest = max(map(parameter_count, blocks), default=parameter_count(module) // 4)
    inside = {part for block in blocks for part in block.modules()}
    layers = [part for part in module.modules() if part not in inside and not any(part.children())]
    return [layer for layer in layers if parameter_count(layer) > largest]


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers a module's parameters are."""
    return sum(parameter.numel() for parameter in module.parameters())


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Return whether it is this rank's part of a tensor of global shape."""
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor  # a second to import: a run on one rank has none

    return isinstance(tensor, DTensor)


def part_of(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, which shares its memory; all of one that is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def own_parameter(parameter: nn.Parameter) -> nn.Parameter:
    """Return this rank's part of a parameter as a plain one, whose memory and gradient it shares; else itself.

    So an optimizer takes any kernel, and compares nothing with other ranks. Clearing its gradient does not clear the
    module's: both ``zero_grad`` are needed.
    """
    return getattr(parameter, _OWN, parameter)


def _share_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    getattr(parameter, _OWN).grad = part_of(parameter.grad)


def as_sharded(part: Tensor, like: Tensor, mesh: DeviceMesh | None = None) -> Tensor:
    """Return this rank's part of a tensor that is sharded as another of its shape is; itself if that is not sharded.

    Args:
        part: shares its memory with what is returned.
        like: the other.
        mesh: of the same ranks, where the part is on another kind of device than the other.
    """
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    place = (like.device_mesh if mesh is None else mesh, like.placements)
    return DTensor.from_local(part, *place, run_check=False, shape=like.shape, stride=like.stride())


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all ranks; every rank calls it. One that is not sharded is returned itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def described(module: nn.Module) -> nn.Module:
    """Return the module itself, or of a sharded one what it was, its parameters on the meta device: not to compute."""
    return _ORIGINS[module].plain if module in _ORIGINS else module


def whole(module: nn.Module) -> nn.Module:
    """Return the module itself, or of a sharded one a copy with all weights on this rank; every rank calls it.

    Any rank may then call the copy as often as it likes. Later steps do not change it. Its parts are in training mode,
    or not, as when the module was sharded.

    Memory: that of all weights. Communication: an all-gather of each.
    """
    if module not in _ORIGINS:
        return module
    copied = copy.deepcopy(_ORIGINS[module].plain)
    tensors = module.state_dict()
    state = {name: whole_tensor(one) if is_sharded(one) else one.clone() for name, one in tensors.items()}
    copied.load_state_dict(state, assign=True)
    return copied


def duplicate(module: nn.Module) -> nn.Module:
    """Return a copy of a module, sharded if it is; every rank calls it."""
    if module not in _ORIGINS:
        return copy.deepcopy(module)
    origin = _ORIGINS[module]
    return origin.config.shard(whole(module), origin.device)


def take_over(module: nn.Module, source: nn.Module) -> None:
    """Copy weights and buffers of a whole module of the same kind, alike on every rank, into a sharded one."""
    weights = source.state_dict()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            part_of(tensor).copy_(_own_part(weights[name], tensor))


def _own_part(whole: Tensor, like: Tensor) -> Tensor:
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return part_of(sharded)
