"""The sizes of a step: what the plan's models of memory, time and communication are functions of."""

from dataclasses import dataclass

import torch

from arcdist.errors import ConfigError
from arcdist.ops.margin_logsumexp.scoring import classes_of_block
from arcdist.train.config import TrainConfig


@dataclass(frozen=True)
class Sizes:
    """A step, and what of its configuration costs memory, time or communication.

    Attributes:
        rows: of a rank's forward pass.
        ranks: of the run.
        num_classes: ``C``, subcenters counted.
        embedding_dim: ``D``.
        rounds: forward passes of a rank in a step.
        precision: of the backbone: fp32, bf16, fp16.
        products: what the head multiplies: fp32, tf32, bf16.
        sample_rate: share of the classes in a step's softmax.
        centers_bytes: of a number of the centers and of their optimizer's state.
        states: numbers that the optimizer keeps for each parameter.
        fused: whether centers change block by block.
        dense: whether centers that a step does not draw move on.
        kept_mib: for exponentials kept from the forward pass.
        group_size: ranks that share the centers; 0: all of them.
        device: cpu or cuda.
        image_size: in pixels.
        gradient_bytes: of a number of the backbone's gradient, as ranks send it.
        shares_weights: whether ranks share out the backbone's weights.
        reshard: whether a block's weights are gathered for each of its passes.
        weights_group: ranks that share them out; 0: all of them.
    """

    rows: int
    ranks: int
    num_classes: int
    embedding_dim: int
    rounds: int = 1
    precision: str = "bf16"
    products: str = "bf16"
    sample_rate: float = 1.0
    centers_bytes: int = 4
    states: int = 1
    fused: bool = True
    dense: bool = True
    kept_mib: float = 128.0
    group_size: int = 0
    device: str = "cuda"
    image_size: int = 112
    gradient_bytes: int = 4
    shares_weights: bool = False
    reshard: bool = True
    weights_group: int = 0

    @property
    def shards(self) -> int:
        """Return how many ranks share the centers."""
        return min(self.group_size, self.ranks) if self.group_size else self.ranks

    @property
    def weight_shards(self) -> int:
        """Return how many ranks share out the backbone's weights, 1 where each holds them all."""
        if not self.shares_weights:
            return 1
        return min(self.weights_group, self.ranks) if self.weights_group else self.ranks

    @property
    def groups(self) -> int:
        """Return how many times the centers are there."""
        return self.ranks // self.shards

    @property
    def batch(self) -> int:
        """Return the rows that a rank scores in a round: those of all ranks that share the centers with it."""
        return self.rows * self.shards

    @property
    def images(self) -> int:
        """Return the images of a step."""
        return self.rows * self.ranks * self.rounds

    @property
    def shard(self) -> int:
        """Return the centers of the rank that holds most."""
        return -(-self.num_classes // self.shards)

    @property
    def drawn(self) -> int:
        """Return how many of them a step is expected to score: a batch's own classes always."""
        missed = (1 - self.sample_rate) * (1 - 1 / self.num_classes) ** self.images
        return round(self.shard * (1 - missed)) if self.sample_rate < 1 else self.shard

    @property
    def block(self) -> int:
        """Return the centers whose logits are there at once."""
        return min(self.drawn, classes_of_block(self.batch, self.device))

    @property
    def narrow(self) -> int:
        """Return the bytes of a number that the head multiplies."""
        return 2 if self.products == "bf16" else 4

    @property
    def kept_classes(self) -> int:
        """Return the centers whose exponentials are kept for the backward pass: whole blocks, and all if they fit."""
        fitting = int(self.kept_mib * 2**20) // (self.batch * self.narrow)
        return self.drawn if fitting >= self.drawn else fitting // self.block * self.block

    @classmethod
    def of(cls, config: TrainConfig, ranks: int, classes: int, precision: str, device: str) -> "Sizes":
        """Return those of a run's step.

        Args:
            config: of the run, checked.
            ranks: how many.
            classes: of the data.
            precision: fp32, bf16 or fp16.
            device: cpu or cuda.

        Errors: ConfigError where the ranks cannot share the batch or the classes so.
        """
        train, head, optim = config.train, config.head, config.optim
        if head.group_size and ranks % head.group_size:
            raise ConfigError(f"head.group_size: {head.group_size}: must divide the number of ranks, {ranks}")
        fsdp = train.fsdp
        if fsdp.group_size and ranks % fsdp.group_size:
            raise ConfigError(f"train.fsdp.group_size: {fsdp.group_size}: must divide the number of ranks, {ranks}")
        rows = train.micro_batch(ranks)
        gradients = train.ddp.gradients if train.parallel == "ddp" else fsdp.gradients
        states = 2 if optim.name == "adamw" else int(optim.momentum > 0)
        return cls(
            rows=rows,
            ranks=ranks,
            num_classes=classes * head.subcenters,
            embedding_dim=config.backbone.embedding_dim,
            rounds=train.global_batch_size // (rows * ranks),
            precision=precision,
            products=head.tuning(precision, torch.device(device)).products,
            sample_rate=head.sample_rate,
            centers_bytes=2 if head.dtype == "bf16" else 4,
            states=states,
            fused=head.update != "separate" and precision != "fp16",
            dense=optim.name == "sgd" and optim.undrawn != "frozen",
            kept_mib=head.kept_mib,
            group_size=head.group_size,
            device=device,
            image_size=config.data.image_size,
            gradient_bytes=4 if gradients == "fp32" else 2,
            shares_weights=train.parallel == "fsdp",
            reshard=fsdp.reshard,
            weights_group=fsdp.group_size,
        )
