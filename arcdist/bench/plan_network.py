"""What a backbone's forward and backward pass cost, counted on the real network without computing it.

Its operations run on fake tensors, which have shapes and no values, for two and for three images. Operation by
operation, the memory that lives then is a number plus another for each image, so the peak is known for any batch.
"""

import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from arcdist.backbones import BackboneConfig
from arcdist.runtime.fully_sharded import large_layers, repeated_blocks
from arcdist.runtime.precision import autocast

Line = tuple[float, float]  # bytes whatever the batch, bytes for each image


@dataclass(frozen=True)
class Unit:
    """A part of a backbone whose weights travel together where ranks share them out.

    Attributes:
        is_block: whether it is repeated; the others' weights stay from the forward to the backward pass.
        trained: of each parameter that is trained, its rows and the numbers of a row.
        frozen: of each that is not.
        count: how many alike.
    """

    is_block: bool
    trained: tuple[tuple[int, int], ...]
    frozen: tuple[tuple[int, int], ...]
    count: int = 1

    def weights(self, shards: int) -> int:
        """Return the numbers that are gathered of one: of each parameter as many rows from every rank, some empty."""
        return _filled_up((*self.trained, *self.frozen), shards)

    def gradients(self, shards: int) -> int:
        """Return the numbers of its gradients that are scattered."""
        return _filled_up(self.trained, shards)


def _filled_up(parameters: Sequence[tuple[int, int]], shards: int) -> int:
    return sum(-(-rows // shards) * shards * each for rows, each in parameters)


@dataclass(frozen=True)
class BackboneCost:
    """What was counted on a backbone.

    Attributes:
        parameters: numbers that are trained.
        frozen: parameters that are not, and buffers.
        normalized_channels: of the BatchNorm layers that learn statistics.
        flops: of an image, both passes: three times those of the forward pass.
        recomputed: how many times as many it is where activations are computed again.
        moved_bytes: of an image, read and written by everything but products and convolutions, both passes.
        forward, kept: memory during the forward pass at its fullest moments, and at its end.
        backward: the same during the backward pass, gradients of parameters left out.
        backward_growing: with those that are there already.
        units: that its weights travel in where ranks share them out.
    """

    parameters: int
    frozen: int
    normalized_channels: int
    flops: float
    recomputed: float
    moved_bytes: float
    forward: tuple[Line, ...]
    kept: Line
    backward: tuple[Line, ...]
    backward_growing: tuple[Line, ...]
    units: tuple[Unit, ...] = ()


def bytes_at(lines: Sequence[Line], rows: int) -> float:
    """Return the most bytes that any of these moments takes with so many images."""
    return max(fixed + rows * each for fixed, each in lines)


def backbone_cost(config: BackboneConfig, precision: str, image_size: int = 112) -> BackboneCost:
    """Return the cost of a backbone's passes in channels_last images of this size."""
    model = config.build()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    others = [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
    two, three = (_watched(model, precision, count, image_size) for count in (2, 3))
    assert len(two.live) == len(three.live), "another number of images, other operations"
    each = [after - before for before, after in zip(two.live, three.live)]
    lines = [(float(before - 2 * slope), float(slope)) for before, slope in zip(two.live, each)]
    growing = [(fixed + made, slope) for (fixed, slope), made in zip(lines, two.gradients)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.training]
    ends = two.forward_events
    flops, again = 3.0 * (three.forward_flops - two.forward_flops), 0
    if config.checkpoint_activations:  # torch counts the backward pass of grouped convolutions too high
        plain = [
            _watched(replace(config, checkpoint_activations=False).build(), precision, count, image_size).flops
            for count in (2, 3)
        ]
        again = three.flops - two.flops - (plain[1] - plain[0])
    return BackboneCost(
        sum(parameter.numel() for parameter in trained),
        sum(tensor.numel() for tensor in others),
        sum(norm.num_features for norm in norms),
        flops,
        1 + again / flops,
        float(three.moved - two.moved),
        _fullest(lines[:ends]),
        lines[ends - 1],
        _fullest(lines[ends:]),
        _fullest(growing[ends:]),
        _units(model),
    )


def _units(model: nn.Module) -> tuple[Unit, ...]:
    blocks = repeated_blocks(model)
    layers = large_layers(model, blocks)
    apart = [list(part.parameters()) for part in (*blocks, *layers)]
    taken = {parameter for parameters in apart for parameter in parameters}
    rest = [parameter for parameter in model.parameters() if parameter not in taken]
    counts = Counter(_unit(parameters, number < len(blocks)) for number, parameters in enumerate((*apart, rest)))
    return tuple(replace(unit, count=count) for unit, count in counts.items())


def _unit(parameters: Sequence[nn.Parameter], is_block: bool) -> Unit:
    sizes = [(p.requires_grad, (len(p), p.numel() // len(p))) for p in parameters]
    trained = tuple(size for is_trained, size in sizes if is_trained)
    return Unit(is_block, trained, tuple(size for is_trained, size in sizes if not is_trained))


def _watched(model: nn.Module, precision: str, count: int, image_size: int) -> "_Watch":
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    watch = _Watch()
    with fake:
        known = [fake.from_tensor(tensor) for tensor in (*model.parameters(), *model.buffers())]
        images = torch.empty(count, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
        hooks = [p.register_post_accumulate_grad_hook(watch.take) for p in model.parameters() if p.requires_grad]
        with watch:
            watch.pass_by([*known, images])
            with autocast(precision, torch.device("cpu")):
                embeddings = model(images)
            watch.forward_events, watch.forward_flops = len(watch.live), watch.flops
            embeddings.backward(torch.ones_like(embeddings))
        for hook in hooks:
            hook.remove()
    return watch


def _fullest(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return those of the lines that are above all others somewhere from two images on."""
    best: list[Line] = []
    rows = 2
    while not best or rows < 2**20:
        top = max(lines, key=lambda line: (line[0] + rows * line[1], line[1]))
        if not best or top != best[-1]:
            best.append(top)
        rows *= 2
    return tuple(best)


class _Watch(TorchDispatchMode):
    """Sums the storages that operations make and that are still there, after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.live: list[int] = []
        self.gradients: list[int] = []  # of parameters, given to them so far
        self.moved = self.flops = self.forward_flops = self.forward_events = 0
        self._bytes = self._given = 0
        self._known: dict[int, object] = {}

    def pass_by(self, tensors: Sequence[Tensor]) -> None:
        """Leave the storages of these out."""
        self._known |= {tensor.untyped_storage()._cdata: tensor for tensor in tensors}

    def take(self, parameter: Tensor) -> None:
        """Take a parameter's gradient away, and remember how large it was."""
        assert parameter.grad is not None
        self._given += parameter.grad.nbytes
        parameter.grad = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: "dict[str, Any] | None" = None
    ) -> Any:
        """Do the operation, and look at what it has made."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.prim.device.default:
            return result
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        elif not func.is_view:
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.moved += sum(tensor.nbytes for tensor in (*given, *made))
        for tensor in made:
            storage = tensor.untyped_storage()
            key, count = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known[key] = None
                self._bytes += count
                weakref.finalize(storage, self._gone, key, count)
        self.live.append(self._bytes)
        self.gradients.append(self._given)
        return result

    def _gone(self, key: int, count: int) -> None:
        self._bytes -= count
        self._known.pop(key, None)
