"""What ranks send each other in a step: embeddings and labels, the embeddings' gradient, the backbone's gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from arcdist.bench.part import Part, PartCase, PartMethod, Subject, flat, relative_error
from arcdist.bench.part_optimizer import sizes_of, weights_bytes
from arcdist.runtime import collectives

_PROCESS_MIB = 500
_MIB = 2**20
_BUCKET = 25 * _MIB // 4  # float32 of torch's DistributedDataParallel, by default


class _AllGather:
    """Embeddings and labels of all ranks: together, as ours, or one after the other."""

    def __init__(self, case: PartCase, together: bool) -> None:
        self._case, self._together = case, together
        self._rows, self._labels = _embeddings(case, collectives.rank())

    def prepare(self) -> None:
        """Leave everything as it is."""

    def step(self) -> None:
        self._gather()

    def error(self) -> float:
        everyones = [_embeddings(self._case, rank) for rank in range(self._case.ranks)]
        expected = [torch.cat(parts) for parts in zip(*everyones, strict=True)]
        return max(relative_error(a, b) for a, b in zip(self._gather(), expected, strict=True))

    def _gather(self) -> tuple[Tensor, ...]:
        if self._together:
            return collectives.gather_rows(self._rows, self._labels)
        return (*collectives.gather_rows(self._rows), *collectives.gather_rows(self._labels))


class _ReduceScatter:
    """The gradient of this rank's embeddings: the sum of what every rank has of it."""

    def __init__(self, case: PartCase, scattered: bool) -> None:
        self._case, self._scattered = case, scattered
        self._rows = _embeddings(case, collectives.rank())[0].requires_grad_()
        self._gradient = self._of(collectives.rank())
        self._mine = slice(collectives.rank() * case.rows, (collectives.rank() + 1) * case.rows)

    def prepare(self) -> None:
        if self._scattered:
            self._rows.grad = None
            (self._gathered,) = collectives.gather_rows(self._rows)

    def step(self) -> None:
        self._reduce()

    def error(self) -> float:
        self.prepare()
        expected = torch.stack([self._of(rank) for rank in range(self._case.ranks)]).double().sum(0)[self._mine]
        return relative_error(self._reduce(), expected)

    def _reduce(self) -> Tensor:
        if not self._scattered:
            return collectives.all_reduce_sum(self._gradient)[self._mine]
        self._gathered.backward(self._gradient)
        assert self._rows.grad is not None
        return self._rows.grad

    def _of(self, rank: int) -> Tensor:
        draws = torch.Generator().manual_seed(100 + rank)
        return torch.randn(self._case.ranks * self._case.rows, self._case.embedding_dim, generator=draws)


class _AllReduce:
    """A gradient of the backbone's size, summed over the ranks in parts of some sizes."""

    def __init__(self, case: PartCase, parts_of: Callable[[Sequence[int]], Sequence[int]]) -> None:
        self._case, self._sizes = case, sizes_of(case.net, case.embedding_dim)
        self._gradient = self._of(collectives.rank())
        self._parts = self._gradient.split([*parts_of(self._sizes)])

    def prepare(self) -> None:
        self._gradient.fill_(1.0)  # sums of sums would overflow

    def step(self) -> None:
        for part in self._parts:
            collectives.sum_in_place(part)

    def error(self) -> float:
        expected = torch.stack([self._of(rank) for rank in range(self._case.ranks)]).double().sum(0)
        self.step()
        return relative_error(flat([self._gradient]), expected)

    def _of(self, rank: int) -> Tensor:
        return torch.randn(sum(self._sizes), generator=torch.Generator().manual_seed(rank))


def _embeddings(case: PartCase, rank: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(rank)
    rows = torch.randn(case.rows, case.embedding_dim, generator=draws)
    return rows, torch.randint(1, 1_000_000, (case.rows,), generator=draws)


def _buckets(sizes: Sequence[int]) -> list[int]:
    """Return the sizes of torch's default buckets, filled in the order of the weights."""
    buckets = [0]
    for size in sizes:
        if buckets[-1] >= _BUCKET:
            buckets.append(0)
        buckets[-1] += size
    return buckets


def _method(name: str, build: Callable[[PartCase], Subject]) -> PartMethod:
    return PartMethod(name, build, 1e-6, lambda case: case.ranks * (_PROCESS_MIB + 3 * weights_bytes(case) / _MIB))


_METHODS = {
    "all_gather": (
        _method("one_after_the_other", lambda case: _AllGather(case, together=False)),
        _method("ours_together", lambda case: _AllGather(case, together=True)),
    ),
    "reduce_scatter": (
        _method("sum_and_slice", lambda case: _ReduceScatter(case, scattered=False)),
        _method("ours_scattered", lambda case: _ReduceScatter(case, scattered=True)),
    ),
    "all_reduce": (
        _method("each_weight", lambda case: _AllReduce(case, lambda sizes: sizes)),
        _method("buckets_25_mib", lambda case: _AllReduce(case, _buckets)),
        _method("at_once", lambda case: _AllReduce(case, lambda sizes: [sum(sizes)])),
    ),
}
COLLECTIVES = tuple(_METHODS)


def _sent(case: PartCase) -> float:
    """Return the bytes that a rank has to send at least."""
    if case.what == "all_reduce":
        return 2 * (case.ranks - 1) / case.ranks * weights_bytes(case)
    label = 8 if case.what == "all_gather" else 0
    return (case.ranks - 1) * case.rows * (4 * case.embedding_dim + label)


COMMUNICATION_PART = Part(
    methods=lambda what: _METHODS[what],
    moved=lambda case: 2 * case.ranks * _sent(case),  # every byte is read by one rank and written by another
    operations=lambda case: 0,
)
