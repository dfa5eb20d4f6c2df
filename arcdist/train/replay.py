"""Whether a device computes the same twice.

A device that now and then computes a wrong number says nothing of it. What it spoils on one rank is averaged into the
gradient of all, so that the ranks go on alike and a look at their weights sees nothing.
"""

import socket

import torch
from torch import Tensor, nn

from arcdist.errors import ArcdistError
from arcdist.runtime import collectives
from arcdist.runtime.precision import autocast

_SHOWN = 3


class ReplayError(ArcdistError):
    """A device has computed two results from the same numbers."""

    on_every_rank = True


def check_replay(backbone: nn.Module, images: Tensor, precision: str, step: int) -> None:
    """Raise ReplayError, on every rank, where a rank's backbone gives other bits when it is computed again.

    Embeddings and gradients of one micro-batch are compared; weights, running statistics, gradients and the random
    state stay as they are.

    Args:
        backbone: not wrapped in DDP.
        images: ``[b, 3, h, w]``, this rank's.
        precision: fp32, bf16 or fp16.
        step: optimizer steps done.

    Cost: two forward and backward passes, and memory for two more gradients.
    Communication: one gather of a line a rank.
    """
    first, again = (_computed(backbone, images, precision, step) for _ in range(2))
    differ = [name for name in first if not torch.equal(first[name], again[name])]
    said = f"on {socket.gethostname()} ({images.device}): {', '.join(differ[:_SHOWN])}" if differ else ""
    told = [
        f"rank {rank} {said}" + (f" and {count - _SHOWN} more" if count > _SHOWN else "")
        for rank, (said, count) in enumerate(collectives.gather_objects((said, len(differ))))
        if said
    ]
    if told:
        raise ReplayError(
            f"step {step}: the same micro-batch, computed twice, gave other bits: {'; '.join(told)}; the device is "
            "not to be trusted: take it out, and go on from a checkpoint of before (resume=PATH)"
        )


def _computed(backbone: nn.Module, images: Tensor, precision: str, step: int) -> dict[str, Tensor]:
    """Return embeddings and gradients by name; the backbone's buffers and the random state are put back."""
    buffers = [buffer.clone() for buffer in backbone.buffers()]
    weights = {name: weight for name, weight in backbone.named_parameters() if weight.requires_grad}
    with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(step)
        with autocast(precision, images.device):
            embeddings = backbone(images)
        towards = torch.randn(embeddings.shape, device=images.device)
        gradients = torch.autograd.grad(embeddings.float(), list(weights.values()), towards, allow_unused=True)
    with torch.no_grad():
        for buffer, before in zip(backbone.buffers(), buffers):
            buffer.copy_(before)
    found = {"embeddings": embeddings.detach()}
    return found | {name: gradient for name, gradient in zip(weights, gradients) if gradient is not None}
