"""One optimizer step; the conventions about gradients meet here.

The loss is the mean over the global batch. The head computes it alike on every rank and scales what goes back to the
backbone by the number of ranks; the mean over ranks, by DDP or FSDP2, then is the gradient of that loss. The centers'
gradient is exact on the rank that holds them and is never averaged.

The rows of a global batch fall into micro-batches in order, and each rank runs its own ones after another. What is
taken over a micro-batch (BatchNorm's statistics, the random numbers of dropout) does not depend on the number of ranks.
"""

import contextlib
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.heads import PartialFC
from arcdist.optim import CenterUpdate, Schedule
from arcdist.optim.averaging import AveragedWeights
from arcdist.optim.optimizers import set_learning_rate
from arcdist.runtime import seeds
from arcdist.runtime.compilation import COMPILED, check_compiled, compiled
from arcdist.runtime.data_parallel import DataParallelConfig
from arcdist.runtime.fully_sharded import FullyShardedConfig, described, own_parameter, whole_tensor
from arcdist.runtime.precision import PRECISIONS, autocast, choose_precision, gradient_scaler, is_void
from arcdist.runtime.ranges import backward_ranges, named_range
from arcdist.runtime.world import World
from arcdist.train.communication import Communication
from arcdist.train.running_statistics import RunningStatistics
from arcdist.train.stragglers import Stragglers
from arcdist.train.teacher import Teacher
from arcdist.train.verdicts import Verdicts


@dataclass
class StepConfig:
    """One optimizer step."""

    global_batch_size: int = field(default=512, metadata={"help": "rows of one optimizer step, over all ranks"})
    micro_batch_size: int = field(
        default=0,
        metadata={"help": "rows of one forward pass and of BatchNorm's statistics; 0: a rank's share in one pass"},
    )
    precision: str = field(default="auto", metadata={"help": "auto | fp32 | bf16 | fp16, of the backbone"})
    ema: float = field(
        default=0.0,
        metadata={"help": "decay of a moving average of the weights, which is then evaluated and kept; 0: none"},
    )
    clip_norm: float = field(default=0.0, metadata={"help": "largest norm of the backbone's gradient; 0: no limit"})
    compile: str = field(
        default="none", metadata={"help": f"{' | '.join(COMPILED)}: the backbone by torch.compile, in one of its modes"}
    )
    parallel: str = field(
        default="ddp", metadata={"help": "ddp | fsdp: every rank holds the whole backbone, or a part of it"}
    )
    ddp: DataParallelConfig = field(default_factory=DataParallelConfig)
    fsdp: FullyShardedConfig = field(default_factory=FullyShardedConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right, whatever the number of ranks."""
        if self.global_batch_size < 1:
            raise ConfigError(f"train.global_batch_size: {self.global_batch_size}: must be at least 1")
        if self.micro_batch_size < 0 or (self.micro_batch_size and self.global_batch_size % self.micro_batch_size):
            raise ConfigError(
                f"train.micro_batch_size: {self.micro_batch_size}: must divide train.global_batch_size "
                f"({self.global_batch_size})"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(f"train.precision: {self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"train.ema: {self.ema}: must be 0 (no average) or below 1, such as 0.999")
        if not 0 <= self.clip_norm < math.inf:
            raise ConfigError(f"train.clip_norm: {self.clip_norm}: must be 0 (no limit) or a number above it")
        check_compiled(self.compile)
        self._check_parallel()

    def _check_parallel(self) -> None:
        ways = {"ddp": (self.ddp, DataParallelConfig()), "fsdp": (self.fsdp, FullyShardedConfig())}
        if self.parallel not in ways:
            raise ConfigError(f"train.parallel: {self.parallel!r}: must be one of {', '.join(ways)}")
        for way, (config, default) in ways.items():
            config.validate()
            if way != self.parallel and config != default:
                raise ConfigError(
                    f"train.{way}: its keys are for train.parallel={way}, and this run's is {self.parallel}, whose own "
                    f"are train.{self.parallel}.{', '.join(vars(ways[self.parallel][0]))}"
                )
        if self.parallel == "fsdp" and self.compile not in ("none", "default"):
            raise ConfigError(
                f"train.compile: {self.compile!r}: cannot be had with train.parallel=fsdp, whose weights come and go: "
                "a CUDA graph wants them in one place; take train.compile=default"
            )

    def micro_batch(self, world_size: int) -> int:
        """Return the rows of one forward pass on ``world_size`` ranks.

        Errors: ConfigError when the ranks cannot share the global batch; it names world sizes that can.
        """
        micro = self.micro_batch_size or max(1, self.global_batch_size // world_size)
        if self.global_batch_size % (micro * world_size):
            unit = self.micro_batch_size or 1
            fitting = [size for size in range(1, 65) if self.global_batch_size % (unit * size) == 0]
            raise ConfigError(
                f"train.global_batch_size: {self.global_batch_size} rows cannot be shared out over {world_size} ranks"
                + (f" in micro-batches of {unit}" if self.micro_batch_size else "")
                + f"; numbers of ranks that can: {', '.join(map(str, fitting))}"
            )
        if micro < 2:
            raise ConfigError(
                f"train.micro_batch_size: {micro} row: BatchNorm needs at least 2 in a forward pass; raise "
                "train.global_batch_size, or start fewer ranks"
            )
        return micro


class Step:
    """The optimizer step: ``loss = step(batch)``; ``step.count`` steps are done.

    A step whose loss or gradients are not finite, on any rank, changes nothing on any rank but ``count``; the host
    learns of it by ``verdicts``. (float16 overflows as its scale is sought: there the scaler alone judges gradients,
    until its scale is below 1.)
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: PartialFC,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        lr: float,
        seed: int,
        config: StepConfig,
        world: World,
        precision: str = "",
        center_update: CenterUpdate | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        """Take the parts of a step.

        Args:
            precision: fp32, bf16 or fp16; empty: as ``config`` says.
            center_update: changes the centers block by block, in place of the optimizer.
            teacher: whose embeddings the backbone's are drawn towards.
        """
        self.backbone, self.head, self.optimizer = backbone, head, optimizer
        self.schedule, self.lr, self.seed, self.config, self.world = schedule, lr, seed, config, world
        self.count = 0
        self.micro_batch = config.micro_batch(world.size)
        self.precision = precision or choose_precision(config.precision, world.device)
        self.center_update, self.teacher = center_update, teacher
        self.average = AveragedWeights(backbone, config.ema) if config.ema else None
        if center_update is not None:
            head.fuse(center_update)
        self.scaler = gradient_scaler(self.precision, world.device)
        self.part_names = (*head.part_names, *(("teacher",) if teacher is not None else ()))
        self._parts = torch.zeros(len(head.part_names) + 1)
        self.statistics = RunningStatistics(backbone)
        self.verdicts = Verdicts(world.device)
        self.stragglers = Stragglers(world.device)
        self.shares_weights = described(backbone) is not backbone
        self.communication = Communication(backbone, world.device)
        self.parallel = compiled(backbone, config.compile, world.device)
        if world.size > 1 and config.parallel == "ddp":
            self.parallel = config.ddp.build(self.parallel, world.device)

    def warm_up(self, image_size: int) -> None:
        """Run one backward pass on a blank micro-batch and undo it, so that DDP has ordered its gradients.

        DDP orders them after its first backward pass, and from three ranks on the order decides the rounding: a
        run that was resumed would differ in the last bits from one that was not.
        """
        if not isinstance(self.parallel, DistributedDataParallel):
            return
        buffers = [buffer.clone() for buffer in self.backbone.buffers()]
        images = torch.zeros(self.micro_batch, 3, image_size, image_size, device=self.world.device)
        with autocast(self.precision, self.world.device):
            embeddings = self.parallel(images.contiguous(memory_format=torch.channels_last))
        (0 * embeddings.float().sum()).backward()
        self._forget_gradients()
        for buffer, before in zip(self.backbone.buffers(), buffers):
            buffer.copy_(before)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.lr * self.schedule(self.count)

    def __call__(self, batch: Batch, asked_to_stop: bool = False) -> Tensor:
        """Do one step and return its loss, a scalar on the device: reading it makes the host wait.

        Args:
            batch: this rank's rows of the global batch, on the device.
            asked_to_stop: what this rank tells the others, in the step's verdict.
        """
        with self.communication.step():
            return self._do(batch, asked_to_stop)

    def _do(self, batch: Batch, asked_to_stop: bool) -> Tensor:
        set_learning_rate(self.optimizer, self.learning_rate)
        rounds = len(batch.labels) // self.micro_batch
        self.head.begin_step(self.count, batch.labels, rounds)
        targets = None if self.teacher is None else self.teacher.targets(self.count)
        # The head's and its parts', of all ranks; the teacher's, of this rank.
        losses = torch.zeros(2 + len(self.head.part_names), device=self.world.device)
        for index in range(rounds):
            rows = slice(index * self.micro_batch, (index + 1) * self.micro_batch)
            target = None if targets is None else targets[rows]
            losses += self._round(index, rounds, batch.images[rows], batch.labels[rows], target)
        loss, norm = losses[0] + losses[-1], self._gradient_norm()
        broken = ~torch.isfinite(loss) | is_void(norm, self.scaler)
        asked = torch.full((), float(asked_to_stop), device=loss.device)
        with named_range("reduce"):
            flags = self.statistics.end_step(torch.stack([broken.float(), asked, losses[-1] / self.world.size]))
        loss, flags, of_teacher = losses[0] + flags[2], flags[:2], flags[2:]
        self._parts = torch.cat([losses[1:-1], of_teacher])
        void = flags[0].clamp(max=1)
        self._move_head_state(void)
        with named_range("optimizer"):
            self._update(norm, void)
        self.count += 1
        if self.average is not None:
            self.average.update(self.count, void)
        self.verdicts.add(self.count, loss, flags)
        return loss

    @property
    def loss_parts(self) -> dict[str, Tensor]:
        """What the last step's loss is the sum of: by name a scalar on the device, weighted; empty of a single part."""
        return dict(zip(self.part_names, self._parts)) if len(self.part_names) > 1 else {}

    def settle(self) -> None:
        """Bring centers up to date that steps have passed by; before anything but a next step reads them."""
        if self.center_update is not None:
            self.center_update.finish()

    @property
    def trained(self) -> nn.Module:
        """The backbone that a run is about: the average of its weights where there is one."""
        return self.backbone if self.average is None else self.average.model

    def _round(self, index: int, rounds: int, images: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        """Add one micro-batch's gradients and return its part of the losses; DDP sums the ranks' in the last one."""
        torch.manual_seed(seeds.mix(self.seed, self.count, self.world.rank * rounds + index))
        self.statistics.begin_round(index)
        wait = index + 1 < rounds and isinstance(self.parallel, DistributedDataParallel)
        if self.config.compile != "none":
            torch.compiler.cudagraph_mark_step_begin()  # nothing of the round before is read in a graph's memory again
        with self.parallel.no_sync() if wait else contextlib.nullcontext():
            # Where ranks share the weights out, a forward pass waits for all of them: no rank is alone in it.
            alone = contextlib.nullcontext() if self.shares_weights else self.stragglers.alone()
            with autocast(self.precision, self.world.device), alone, named_range("backbone forward"):
                embeddings = self.parallel(images)
            with named_range("head"):
                of_head = self.head(embeddings, labels) / rounds
            if self.teacher is None or targets is None:
                of_teacher = torch.zeros_like(of_head)
            else:
                of_teacher = self.teacher.part(embeddings, targets) / rounds
            with self.communication.backward(not wait), backward_ranges(embeddings):
                self.scaler.scale(of_head + of_teacher).backward()
        return torch.cat([of_head[None], self.head.loss_parts / rounds, of_teacher[None]]).detach()

    def _gradient_norm(self) -> Tensor:
        """Return the norm of the backbone's gradient, not scaled; not finite where the centers' is not either."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.backbone.parameters() if p.grad is not None]
        norm = whole_tensor(nn.utils.get_total_norm(gradients))
        if self.head.centers.grad is not None:  # else it is made block by block, of numbers that the loss was made of
            norm = norm + 0 * self.head.centers.grad.norm()
        return norm

    def _move_head_state(self, void: Tensor) -> None:
        """Let the margin's and the auxiliary losses' state move on, unless the step is void."""
        state = [*self.head.replicated_tensors().values(), *self.head.sharded_tensors().values()]
        before = [tensor.clone() for tensor in state]
        self.head.end_step()
        for tensor, old in zip(state, before):
            tensor.copy_(torch.where(void > 0, old, tensor))

    def _update(self, norm: Tensor, void: Tensor) -> None:
        if self.config.clip_norm:
            own = [own_parameter(parameter) for parameter in self.backbone.parameters()]
            nn.utils.clip_grads_with_norm_(own, self.config.clip_norm, norm)
        self.optimizer.found_inf = void  # ty: ignore[missing-attribute]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.center_update is not None:
            self.center_update.step, self.center_update.void = self.count, void
            self.head.update_centers()
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backbone.zero_grad(set_to_none=True)  # what the optimizer has parts of
