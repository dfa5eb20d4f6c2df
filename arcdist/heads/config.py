"""What turns the head."""

import math
from dataclasses import dataclass, field

import torch

from arcdist.errors import ConfigError
from arcdist.heads.auxiliary.config import LossesConfig
from arcdist.heads.partial_fc import PartialFC
from arcdist.margins import Margin
from arcdist.ops.margin_logsumexp import IMPLEMENTATIONS, PRODUCTS, Tuning
from arcdist.runtime.precision import choose_products

INITIAL = ("random", "class_means")
UPDATES = ("auto", "fused", "separate")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class PartialFCConfig:
    """The sharded margin softmax."""

    sample_rate: float = field(
        default=1.0, metadata={"help": "share of the classes in a step's softmax, in (0, 1]; a batch's own always are"}
    )
    subcenters: int = field(default=1, metadata={"help": "centers of a class, of which the nearest counts"})
    initial: str = field(
        default="random",
        metadata={"help": "random | class_means (of embeddings by the backbone that a run begins with), the centers"},
    )
    update: str = field(
        default="auto",
        metadata={"help": "auto | fused (centers change block by block, no gradient of full size) | separate"},
    )
    implementation: str = field(
        default="auto", metadata={"help": "auto | blockwise (any device) | triton (CUDA), of the softmax"}
    )
    products: str = field(default="auto", metadata={"help": "auto | fp32 | tf32 | bf16, what the head multiplies in"})
    dtype: str = field(
        default="fp32",
        metadata={"help": "fp32 | bf16, of centers and their optimizer's state; bf16 is rounded stochastically"},
    )
    kept_mib: float = field(
        default=128.0, metadata={"help": "memory for exponentials kept from the forward to the backward pass"}
    )
    kept_dtype: str = field(
        default="auto", metadata={"help": "auto (what the head multiplies in) | fp32 | bf16, of these"}
    )

    group_size: int = field(
        default=0,
        metadata={
            "help": "neighboring ranks that share the classes, a group each: a node's or several; pays on many nodes, "
            "see arcdist plan; 0: all ranks are one group"
        },
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.group_size < 0:
            raise ConfigError(f"head.group_size: {self.group_size}: must be 0 (all ranks) or a number of ranks")
        if not 0 < self.sample_rate <= 1:
            raise ConfigError(f"head.sample_rate: {self.sample_rate}: must be in (0, 1]; 1 is the whole softmax")
        if self.subcenters < 1:
            raise ConfigError(f"head.subcenters: {self.subcenters}: must be at least 1")
        if not 0 <= self.kept_mib < math.inf:
            raise ConfigError(f"head.kept_mib: {self.kept_mib}: must be 0 (keep nothing) or above, in MiB")
        if self.initial == "class_means" and self.subcenters > 1:
            raise ConfigError("head.initial: 'class_means': gives a class one center; head.subcenters must be 1")
        choices = {
            "initial": INITIAL,
            "update": UPDATES,
            "implementation": IMPLEMENTATIONS,
            "products": ("auto", *PRODUCTS),
            "dtype": tuple(_DTYPES),
            "kept_dtype": ("auto", *_DTYPES),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"head.{name}: {getattr(self, name)!r}: must be one of {', '.join(allowed)}")

    def tuning(self, precision: str, device: torch.device) -> Tuning:
        """Return how the logits are computed in a run of this precision (fp32, bf16 or fp16), on every rank alike."""
        return Tuning(
            self.implementation,
            products=choose_products(precision, device) if self.products == "auto" else self.products,
            kept_mib=self.kept_mib,
            kept_dtype=_DTYPES.get(self.kept_dtype),
        )

    def fuses(self, precision: str, head: PartialFC) -> bool:
        """Return whether the centers change block by block, without a gradient of full size.

        Errors: ConfigError where ``update`` is fused and cannot be.
        """
        reason = ""
        if precision == "fp16":
            reason = "train.precision=fp16 needs the whole gradient to know whether to skip a step; take bf16"
        touching = [f"losses.{name}" for name, loss in head.auxiliary.items() if loss.touches_centers]
        if touching:
            reason = f"{', '.join(touching)} moves every center, by a gradient of full size"
        if reason and self.update == "fused":
            raise ConfigError(f"head.update: 'fused': {reason}; or set head.update=separate")
        if self.dtype == "bf16" and (reason or self.update == "separate"):
            raise ConfigError(
                f"head.dtype: 'bf16': needs head.update=fused, which rounds as it must{reason and ': '}{reason}"
            )
        return self.update != "separate" and not reason

    def build(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: Margin,
        losses: LossesConfig,
        precision: str,
        seed: int,
        device: torch.device,
    ) -> PartialFC:
        """Return the head with this rank's centers on ``device``."""
        self.validate()
        return PartialFC(
            embedding_dim,
            num_classes,
            margin.to(device),
            self.sample_rate,
            seed,
            subcenters=self.subcenters,
            tuning=self.tuning(precision, device),
            softmax=losses.softmax,
            auxiliary=losses.build(embedding_dim, num_classes, device),
            device=device,
            dtype=_DTYPES[self.dtype],
            group_size=self.group_size,
        )
