"""Data-parallel modules: every rank holds all weights, and their gradients are the mean over the ranks."""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from arcdist.errors import ConfigError


def _bf16_hook(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    # Under its own name DDP lets it be used with NCCL only; gloo sums bfloat16 too.
    return default_hooks.bf16_compress_hook(state, bucket)


_HOOKS = {"bf16": _bf16_hook, "fp16": default_hooks.fp16_compress_hook}


@dataclass
class DataParallelConfig:
    """How ranks take the mean of the backbone's gradients (torch's DDP)."""

    gradients: str = field(
        default="fp32",
        metadata={"help": "fp32 | bf16 | fp16, what ranks send; the narrow ones halve the bytes and round each sum"},
    )
    bucket_mib: float = field(default=25.0, metadata={"help": "gradients that travel together, while others are made"})
    static_graph: bool = field(
        default=False, metadata={"help": "promise that every step uses the same parameters in the same order"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.gradients not in ("fp32", *_HOOKS):
            raise ConfigError(f"train.ddp.gradients: {self.gradients!r}: must be one of fp32, {', '.join(_HOOKS)}")
        if not 0 < self.bucket_mib < math.inf:
            raise ConfigError(f"train.ddp.bucket_mib: {self.bucket_mib}: must be a number above 0, such as 25")

    def build(self, module: nn.Module, device: torch.device) -> DistributedDataParallel:
        """Return the module as one whose backward pass leaves the mean over all ranks in its gradients.

        Args:
            module: alike on every rank; its buffers are not sent.
            device: of this rank.

        Communication: an all-reduce of the gradients, in buckets, beside the rest of the backward pass.
        """
        # torch 2.13 has a new name for it, and warns of the old one.
        new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        buffers: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False}
        parallel = DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self.bucket_mib,
            static_graph=self.static_graph,
            **buffers,
        )
        if hook := _HOOKS.get(self.gradients):
            parallel.register_comm_hook(None, hook)
        return parallel
