"""The rates of this machine that a plan is made of, measured on none of the steps that the plan predicts."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from arcdist.backbones import BackboneConfig
from arcdist.bench.floors import Floors
from arcdist.bench.plan_machine import floor_rates
from arcdist.bench.plan_network import backbone_cost
from arcdist.bench.workers import Workers
from arcdist.runtime import collectives
from arcdist.runtime.precision import autocast
from arcdist.runtime.world import RuntimeConfig, open_world

ROWS = (4, 12)  # of the forward and backward passes that a backbone's rate is taken from
_FLOOR_ROWS, _DIM, _CENTERS = 32, 512, 16384
_LINK_NUMBERS = (256, 2**22)
_REPEATS, _FLOOR_REPEATS = 5, 20  # the floors' parts take milliseconds


class RatesProbe:
    """One of several processes that measure at the same time, as ranks compute at the same time."""

    def __init__(self, threads: int, ranks: int) -> None:
        each = max(1, threads // ranks)
        self._device = open_world(RuntimeConfig("cpu", each, keep_memory=True)).device
        self._floors = Floors("cpu", each, _CENTERS, _FLOOR_REPEATS)

    def floors(self) -> dict[str, Any]:
        """Return the head's rates."""
        return floor_rates(self._floors.measure(_FLOOR_ROWS, _DIM))

    def backbone(self, name: str, dim: int, precision: str) -> tuple[float, float]:
        """Return the seconds of a forward and backward pass, whatever the batch and for each image."""
        model = BackboneConfig(name, dim).build().to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        few, more = (self._passes_s(model, precision, rows) for rows in ROWS)
        each = (more - few) / (ROWS[1] - ROWS[0])
        return max(0.0, few - ROWS[0] * each), each

    def link(self) -> tuple[float, float, float]:
        """Return bytes a second and seconds of latency of an all-reduce by the formula of rings; and ``gathering``."""
        if collectives.world_size() == 1:
            return 0.0, 0.0, 1.0
        few, many = (torch.zeros(count) for count in _LINK_NUMBERS)
        latency, whole = (self._best_s(lambda value=value: collectives.all_reduce_sum(value)) for value in (few, many))
        ranks = collectives.world_size()
        mine = torch.zeros(len(many) // ranks, requires_grad=True)

        def gather_and_scatter() -> None:
            (everyones,) = collectives.gather_rows(mine)
            everyones.backward(many[: len(everyones)])

        rate = 2 * (ranks - 1) / ranks * (many.nbytes - few.nbytes) / (whole - latency)
        return rate, latency, self._best_s(gather_and_scatter) / whole

    def _passes_s(self, model: torch.nn.Module, precision: str, rows: int) -> float:
        images = torch.rand(rows, 3, 112, 112).contiguous(memory_format=torch.channels_last)

        def passes() -> None:
            with autocast(precision, self._device):
                embeddings = model(images)
            embeddings.float().sum().backward()
            model.zero_grad()

        passes()
        return self._best_s(passes, statistics.median)

    def _best_s(self, work: Callable[[], Any], choose: Callable[[Sequence[float]], float] = min) -> float:
        seconds = []
        for _ in range(_REPEATS):
            collectives.barrier()
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return choose(seconds)


def measured_rates(threads: int, ranks: int) -> dict[str, Any]:
    """Return the rates of the head and the links that each of ``ranks`` processes has while all compute.

    Args:
        threads: of all processes together.
        ranks: how many.
    """
    with closing(Workers(RatesProbe, threads, ranks, ranks=ranks)) as workers:
        rates: dict[str, Any] = {"ranks": ranks, **workers.ask("floors")[-1], "convolutions": {}, "backbones": {}}
        rates["link_per_s"], rates["latency_s"], rates["gathering"] = workers.ask("link")[0]
    return rates


def measured_backbone(
    name: str, dim: int, precision: str, threads: int, ranks: int
) -> tuple[tuple[float, float], float]:
    """Return the seconds of its passes, whatever the batch and for each image, and what rate of products they come to.

    Args:
        name: of the backbone.
        dim: of its embeddings.
        precision: fp32 or bf16.
        threads: of all processes together.
        ranks: processes that compute it at the same time; the slowest counts.
    """
    with closing(Workers(RatesProbe, threads, ranks, ranks=ranks)) as workers:
        answers = workers.ask("backbone", name, dim, precision)
    fixed, each = (max(values) for values in zip(*answers))
    return (fixed, each), backbone_cost(BackboneConfig(name, dim), precision).flops / each
