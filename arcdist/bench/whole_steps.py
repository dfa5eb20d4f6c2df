"""Whole training steps: ours, ours with one option other than it is, and a plain one as arcface_torch does it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcdist.backbones import create_backbone
from arcdist.backbones.convolution import Conv2d
from arcdist.backbones.grouped import GroupedConv2d
from arcdist.backbones.prelu import PReLU
from arcdist.bench import machine
from arcdist.bench.baselines import PartialFCV2
from arcdist.data.torch_loader import Batch
from arcdist.heads import PartialFC, PartialFCConfig
from arcdist.margins import Combined
from arcdist.optim.optimizers import OptimConfig
from arcdist.optim.schedules import ScheduleConfig
from arcdist.runtime import collectives
from arcdist.runtime.data_parallel import DataParallelConfig
from arcdist.runtime.fully_sharded import FullyShardedConfig, described
from arcdist.runtime.precision import autocast
from arcdist.runtime.world import RuntimeConfig, World, open_world
from arcdist.train.step import Step, StepConfig

_CLIP_NORM = 5.0
_PROCESS_MIB, _IMAGE_MIB, _CENTERS_COPIES = 600, 40, 7  # what a step needs, roughly and at most

OneStep = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StepCase:
    """The sizes of a training step, of all ranks together."""

    backbone: str
    num_classes: int
    batch_size: int
    embedding_dim: int = 512
    image_size: int = 112
    device: str = "cpu"
    ranks: int = 1

    def batches(self) -> Iterator[Batch]:
        """Yield this rank's images, float32 in [-1, 1] and channels_last as a loader leaves them, and labels."""
        draws = torch.Generator().manual_seed(collectives.rank())
        rows, size = self.batch_size // self.ranks, self.image_size
        while True:
            images = torch.rand(rows, 3, size, size, generator=draws).mul_(2).sub_(1)
            images = images.to(self.device, memory_format=torch.channels_last)
            yield Batch(images, torch.randint(self.num_classes, (rows,), generator=draws).to(self.device))


@dataclass(frozen=True)
class StepMethod:
    """A way to do a training step; the defaults are arcdist's own.

    Attributes:
        name: as the results call it.
        precision: of the backbone.
        allocator: ``tuned`` keeps freed memory, ``as_started`` is glibc's way.
        channels_last: whether images and weights have the channels last in memory.
        fast_layers: whether PReLU and convolutions are ours or torch's own.
        fused_update: whether the centers change block by block.
        compiled: whether the backbone goes through ``torch.compile``.
        library: of float32 products.
        gradients: what several ranks send of their gradients.
        static_graph: whether DDP is promised that a step is as the one before.
        shares_weights: whether several ranks share out the backbone's weights.
        recomputed: whether only the blocks' inputs are kept for the backward pass.
        plain: a step as arcface_torch does it, see ``PlainStep``.
    """

    name: str
    precision: str
    allocator: str = "tuned"
    channels_last: bool = True
    fast_layers: bool = True
    fused_update: bool = True
    compiled: bool = False
    library: str = "auto"
    gradients: str = "fp32"
    static_graph: bool = False
    shares_weights: bool = False
    recomputed: bool = False
    plain: bool = False

    @property
    def is_of_several_ranks(self) -> bool:
        """Whether one rank alone does the same step as without its options."""
        return self.gradients != "fp32" or self.static_graph or self.shares_weights

    def needed_mib(self, case: StepCase) -> float:
        """Return about what the processes of all ranks need for it."""
        centers = _CENTERS_COPIES * case.num_classes * case.embedding_dim * 4 / 2**20
        return _PROCESS_MIB * case.ranks + _IMAGE_MIB * case.batch_size + centers

    def build(self, case: StepCase, world: World) -> OneStep:
        """Return what does a step of this case and returns its loss."""
        torch.manual_seed(0)
        keeps_less = {"checkpoint_activations": True} if self.recomputed else {}
        backbone = create_backbone(case.backbone, case.embedding_dim, **keeps_less).to(world.device)
        if not self.fast_layers:
            with_layers_of_torch(backbone)
        if self.shares_weights:
            FullyShardedConfig().shard(backbone, world.device)
        if self.channels_last and described(backbone) is backbone:
            backbone = backbone.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        return PlainStep(self, backbone, case, world) if self.plain else OurStep(self, backbone, case, world)


class OurStep:
    """``train.step.Step`` with the margin's gradient, the decay and the clipping that the plain one has."""

    def __init__(self, method: StepMethod, backbone: nn.Module, case: StepCase, world: World) -> None:
        margin = Combined(gradient="straight_through")
        tuning = PartialFCConfig().tuning(method.precision, world.device)
        sizes = (case.embedding_dim, case.num_classes)
        self.head = PartialFC(*sizes, margin, tuning=tuning, device=world.device)
        optim = OptimConfig(decay_all=True)
        optimizer = optim.build(backbone, self.head.centers)
        update = None
        if method.fused_update:
            update = optim.center_update(optimizer, self.head.centers, self.head.classes.start, 0)
        ddp = DataParallelConfig(method.gradients, static_graph=method.static_graph)
        config = StepConfig(
            case.batch_size,
            precision=method.precision,
            clip_norm=_CLIP_NORM,
            compile="default" if method.compiled else "none",
            parallel="fsdp" if method.shares_weights else "ddp",
            ddp=ddp,
        )
        schedule = ScheduleConfig().build(100_000, 10_000)
        self.step = Step(backbone, self.head, optimizer, schedule, optim.lr, 0, config, world, method.precision, update)
        self._layout = torch.channels_last if method.channels_last else torch.contiguous_format

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        return self.step(Batch(images.contiguous(memory_format=self._layout), labels))


class PlainStep:
    """What arcface_torch does: channels first, eager, DDP that looks for unused parameters, all logits in float32.

    In fp16 its gradients are scaled, as there; that is timed on GPUs alone.
    """

    def __init__(self, method: StepMethod, backbone: nn.Module, case: StepCase, world: World) -> None:
        self._precision, self._device = method.precision, world.device
        self._backbone = backbone
        if world.size > 1:
            self._backbone = DistributedDataParallel(backbone, find_unused_parameters=True)
        self.head = PartialFCV2(case.embedding_dim, case.num_classes, device=world.device)
        parameters = [{"params": self._backbone.parameters()}, {"params": self.head.parameters()}]
        optim = OptimConfig()
        self._sgd = torch.optim.SGD(parameters, optim.lr, optim.momentum, weight_decay=optim.weight_decay)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=method.precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        with autocast(self._precision, self._device):
            embeddings = self._backbone(images.contiguous())
        loss: Tensor = self.head(embeddings.float(), labels)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._sgd)
        nn.utils.clip_grad_norm_(self._backbone.parameters(), _CLIP_NORM)
        self._scaler.step(self._sgd)
        self._scaler.update()
        self._sgd.zero_grad()
        return loss.detach()


def with_layers_of_torch(model: nn.Module) -> None:
    """Let the layers that arcdist computes in its own way be torch's own again; keys and weights stay."""
    for module in model.modules():
        if isinstance(module, PReLU):
            module.__class__ = nn.PReLU
        elif isinstance(module, Conv2d | GroupedConv2d):
            module.__class__ = nn.Conv2d


BASELINE = "plain_fp32"


def _methods() -> Iterator[StepMethod]:
    for precision in ("fp32", "bf16", "fp16"):
        for suffix, allocator in (("", "as_started"), ("_tuned", "tuned")):
            name = f"plain_{precision}{suffix}"
            yield StepMethod(
                name, precision, allocator, channels_last=False, fast_layers=False, library="blas", plain=True
            )
    for precision in ("fp32", "bf16"):
        ours = f"ours_{precision}"
        yield StepMethod(ours, precision)
        yield StepMethod(f"{ours}_as_started", precision, allocator="as_started")
        yield StepMethod(f"{ours}_channels_first", precision, channels_last=False)
        yield StepMethod(f"{ours}_layers_of_torch", precision, fast_layers=False)
        yield StepMethod(f"{ours}_separate_update", precision, fused_update=False)
        yield StepMethod(f"{ours}_products_by_blas", precision, library="blas")
        yield StepMethod(f"{ours}_compiled", precision, compiled=True)
        yield StepMethod(f"{ours}_checkpointed", precision, recomputed=True)
        yield StepMethod(f"{ours}_bf16_gradients", precision, gradients="bf16")
        yield StepMethod(f"{ours}_static_graph", precision, static_graph=True)
        yield StepMethod(f"{ours}_fsdp", precision, shares_weights=True)


STEP_METHODS = {method.name: method for method in _methods()}


@dataclass(frozen=True)
class StepSeconds:
    """One step."""

    total_s: float


@dataclass
class WholeStepTimer:
    """A method's step, in a process of its own; its first, which touches memory and compiles, is timed apart."""

    method: str
    case: StepCase
    allocator: str
    threads: int
    first_s: float = field(init=False)

    def __post_init__(self) -> None:
        each = max(1, self.threads // self.case.ranks)
        library, tuned = STEP_METHODS[self.method].library, self.allocator == "tuned"
        world = open_world(RuntimeConfig(self.case.device, each, float32_products=library, keep_memory=tuned))
        self._device = world.device
        self._step, self._batches = STEP_METHODS[self.method].build(self.case, world), self.case.batches()
        machine.reset_peak(self._device)
        self.first_s = self._one().total_s

    def turn(self, steps: int) -> list[StepSeconds]:
        """Return the times of so many steps."""
        return [self._one() for _ in range(steps)]

    def memory(self) -> dict[str, float]:
        """Return the process's peak, and the seconds of its first step."""
        return {"peak_mib": round(machine.peak_mib(self._device), 1), "first_s": round(self.first_s, 2)}

    def _one(self) -> StepSeconds:
        batch = next(self._batches)
        collectives.barrier()
        start = self._now()
        self._step(batch.images, batch.labels)
        return StepSeconds(self._now() - start)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
