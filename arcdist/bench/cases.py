"""What is measured: sizes, and a table of named heads with their optimizers. A new one is a line in ``_methods``."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcdist.bench.baselines import LinearCrossEntropy, Materialized, PartialFCV2
from arcdist.heads.partial_fc import PartialFC
from arcdist.margins import Combined
from arcdist.ops.margin_logsumexp import Tuning
from arcdist.optim.center_updates import CenterUpdate
from arcdist.optim.optimizers import OptimConfig
from arcdist.runtime import collectives

_LIBRARIES_MIB = 600  # of a process that has imported torch and worked with it
_MIB = 2**20


@dataclass(frozen=True)
class Case:
    """The sizes of a head's step, of all ranks together, and what its SGD is told."""

    num_classes: int
    batch_size: int
    embedding_dim: int = 512
    device: str = "cpu"
    ranks: int = 1
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def centers_mib(self) -> float:
        """Return the size of the centers in float32; their momentum is as large."""
        return self.num_classes * self.embedding_dim * 4 / _MIB

    @property
    def logits_mib(self) -> float:
        """Return the size of all logits in float32."""
        return self.num_classes * self.batch_size * 4 / _MIB

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's embeddings ``[b, D]``, which want a gradient, and labels ``[b]``; for all methods alike."""
        draws = torch.Generator().manual_seed(0)
        mine = collectives.rank() * self.batch_size // self.ranks
        mine = slice(mine, mine + self.batch_size // self.ranks)
        while True:
            embeddings = torch.randn(self.batch_size, self.embedding_dim, generator=draws)
            labels = torch.randint(self.num_classes, (self.batch_size,), generator=draws)
            yield embeddings[mine].to(self.device).requires_grad_(), labels[mine].to(self.device)


@dataclass
class Subject:
    """A head, its centers, and what changes them after the backward pass."""

    head: nn.Module
    centers: nn.Parameter
    update: Callable[[], None]


@dataclass(frozen=True)
class Method:
    """A way to do the step.

    Attributes:
        name: as the command line and the results call it.
        build: makes its subject for a case.
        baseline: the method that it is held against.
        m2: the margin of its loss, in radians.
        sample_rate: share of the centers in a step.
        distributed: whether it can run on several ranks.
        bf16: whether it multiplies in bf16, which takes minutes where the hardware cannot.
        tuning: of ours; it tells which matrix products a step needs.
        library: of float32 products; torch's own choice in what is not ours.
        state_copies: size of centers and momentum, in float32 matrices of the centers' size.
        centers_copies: what a step holds beside centers and momentum, in float32 matrices of the centers' size …
        logits_copies: … and of all logits' size: both only to tell what fits into memory.
        error_limit: the relative error of loss or gradients from which it counts as wrong, and is not timed; none
            where it is an approximation.
    """

    name: str
    build: Callable[[Case], Subject]
    baseline: str
    m2: float = 0.5
    sample_rate: float = 1.0
    distributed: bool = True
    bf16: bool = False
    tuning: Tuning | None = None
    library: str = "blas"
    state_copies: float = 2.0
    centers_copies: float = 0.0
    logits_copies: float = 0.0
    error_limit: float = 1e-2

    def state_mib(self, case: Case) -> float:
        """Return the size of a rank's centers and momentum."""
        return self.state_copies * case.centers_mib / case.ranks

    def needed_mib(self, case: Case) -> float:
        """Return about what the processes of all ranks need for it."""
        transient = self.centers_copies * case.centers_mib + self.logits_copies * case.logits_mib
        return _LIBRARIES_MIB * case.ranks + self.state_copies * case.centers_mib + transient + self._kept_mib(case)

    def products(self, case: Case) -> dict[str, float]:
        """Return how often a step multiplies, ``2·B·C·D`` operations each; nothing for another's head."""
        if self.tuning is None:
            return {}
        kept = self._kept_mib(case) / self._exponentials_mib(case)
        often = {"logits": 2 - kept, "embedding gradient": 1.0, "centers gradient": 1.0}
        return {product: times * self.sample_rate for product, times in often.items()}

    def _exponentials_mib(self, case: Case) -> float:
        tuning = self.tuning or Tuning()
        multiplied = torch.bfloat16 if tuning.products == "bf16" else torch.float32
        return self.sample_rate * case.logits_mib * (tuning.kept_dtype or multiplied).itemsize / 4

    def _kept_mib(self, case: Case) -> float:
        return min(self.tuning.kept_mib * case.ranks, self._exponentials_mib(case)) if self.tuning else 0.0


def with_sgd(make: Callable[[Case], nn.Module]) -> Callable[[Case], Subject]:
    """Return a builder of the head that ``make`` makes, updated by ``torch.optim.SGD``."""

    def build(case: Case) -> Subject:
        head = make(case)
        centers = head.centers
        assert isinstance(centers, nn.Parameter)
        sgd = torch.optim.SGD([centers], case.lr, case.momentum, weight_decay=case.weight_decay)

        def update() -> None:
            sgd.step()
            sgd.zero_grad(set_to_none=True)

        return Subject(head, centers, update)

    return build


def _theirs(name: str, make: Callable[[Case], nn.Module], baseline: str, **values: Any) -> Method:
    return Method(name, with_sgd(make), baseline, **values)


def _ours(
    name: str, baseline: str, tuning: Tuning | None = None, m2: float = 0.5, sample_rate: float = 1.0,
    fused: bool = True, dtype: torch.dtype = torch.float32, **values: Any,
) -> Method:  # fmt: skip
    """Return arcdist's head with the gradient of arcface_torch's margin; what it does not draw moves as there."""
    tuning = tuning or Tuning()

    def make(case: Case) -> PartialFC:
        margin = Combined(m2=m2, gradient="straight_through")
        sizes = (case.embedding_dim, case.num_classes)
        return PartialFC(*sizes, margin, sample_rate, tuning=tuning, device=case.device, dtype=dtype)

    def build(case: Case) -> Subject:
        head = make(case)
        sgd = OptimConfig(lr=case.lr, momentum=case.momentum, weight_decay=case.weight_decay)
        head.fuse(CenterUpdate(sgd.build(nn.Identity(), head.centers), head.centers, "dense"))
        return Subject(head, head.centers, head.update_centers)

    copies = 0 if fused else 2
    step = build if fused else with_sgd(make)
    ours: dict[str, Any] = {"tuning": tuning, "library": "auto", "centers_copies": copies}
    return Method(name, step, baseline, m2, sample_rate, **ours, **values)


_SHIPPED, _CHUNKED = "partial_fc_v2", "linear_cross_entropy"
_SAMPLED = 0.1
_KEEP_ALL = 2.0**20  # MiB


def _methods() -> Iterator[Method]:
    def shipped(*options: Any) -> Callable[[Case], nn.Module]:
        return lambda case: PartialFCV2(case.embedding_dim, case.num_classes, *options, device=case.device)

    def chunked(chunk: int | None) -> Callable[[Case], nn.Module]:
        return lambda case: LinearCrossEntropy(case.embedding_dim, case.num_classes, chunk, device=case.device)

    def materialized(case: Case) -> nn.Module:
        return Materialized(case.embedding_dim, case.num_classes, device=case.device)

    full: dict[str, Any] = {"centers_copies": 4, "logits_copies": 4}
    sampled: dict[str, Any] = {"sample_rate": _SAMPLED, "error_limit": math.inf}
    yield _theirs(_SHIPPED, shipped(), _SHIPPED, **full)
    yield _theirs("partial_fc_v2_same_library", shipped(), _SHIPPED, **full, library="auto")
    yield _theirs("partial_fc_v2_bf16", shipped(1.0, True), _SHIPPED, **full, bf16=True, error_limit=0.5)
    yield _theirs("partial_fc_v2_sampled", shipped(_SAMPLED), _SHIPPED, **sampled, centers_copies=3, logits_copies=0.4)
    yield _theirs("materialized", materialized, _SHIPPED, **full, distributed=False)
    yield _ours("ours", _SHIPPED)
    yield _ours("ours_separate", _SHIPPED, fused=False)
    yield _ours("ours_recomputed", _SHIPPED, Tuning(kept_mib=0))
    yield _ours("ours_kept_bf16", _SHIPPED, Tuning(kept_mib=_KEEP_ALL, kept_dtype=torch.bfloat16))
    yield _ours("ours_bf16", _SHIPPED, Tuning(products="bf16"), bf16=True, error_limit=0.1)
    kept_all = Tuning(products="bf16", kept_mib=_KEEP_ALL)
    yield _ours("ours_bf16_all_kept", _SHIPPED, kept_all, bf16=True, error_limit=0.1)
    yield _ours("ours_bf16_centers", _SHIPPED, dtype=torch.bfloat16, state_copies=1.0, error_limit=math.inf)
    yield _ours("ours_sampled", _SHIPPED, **sampled)
    if hasattr(F, "linear_cross_entropy"):  # from torch 2.13 on
        yield _theirs(_CHUNKED, chunked(None), _CHUNKED, m2=0.0, **full, distributed=False)
        yield _theirs(f"{_CHUNKED}_64", chunked(64), _CHUNKED, m2=0.0, **full, distributed=False)
    yield _ours("ours_no_margin", _CHUNKED, m2=0.0)


METHODS = {method.name: method for method in _methods()}
