"""How a forward pass runs: which activations it keeps, and in which precision it ends."""

import contextlib
from collections.abc import Generator, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, checkpoint_activations: bool) -> Tensor:
    """Return ``x`` after all blocks, one after another.

    With ``checkpoint_activations`` only the blocks' inputs are kept for the backward pass, which computes each block
    again: about a third more time for the memory of one block. Loss, gradients, random draws and BatchNorm's
    statistics are those of the plain way.
    """
    for block in blocks:
        x = _recomputed(block, x) if checkpoint_activations else block(x)
    return x


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _still_statistics(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _still_statistics(block: nn.Module) -> Generator[None, None, None]:
    """Let BatchNorm normalize by the batch as before, but not count the batch a second time."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def flatten_map(x: Tensor) -> Tensor:
    """Return ``[b, C, H, W]`` as ``[b, C·H·W]``, the order of torch.flatten; its gradient lies in memory as ``x`` does.

    Left as it comes, with the channels first, the BatchNorm before it takes eight times as long on a CPU.
    """
    real = type(x) is Tensor and not torch.compiler.is_compiling()  # and does not stand for one, as where a plan counts
    if real and x.device.type == "cpu" and x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
    return torch.flatten(x, 1)


def run_last_layers(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return ``x`` after the layers, computed in the dtype of their weights, under autocast too.

    Their sums are long (25,088 terms in an iResNet), and what they give is all that the head sees.
    """
    x = x.to(next(layers[0].parameters()).dtype)
    with _without_autocast(x.device.type):
        for layer in layers:
            x = layer(x)
    return x


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    # Nothing is entered where nothing is on: the meta device knows no autocast, and an exporter would trace it.
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
