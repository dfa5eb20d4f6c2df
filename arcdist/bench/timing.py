"""How it is measured: processes for each method, which do steps of their own in turn."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from arcdist.bench import machine
from arcdist.bench.cases import METHODS, Case, Subject
from arcdist.bench.workers import NotMeasuredError, Workers
from arcdist.runtime import collectives
from arcdist.runtime.world import RuntimeConfig, open_world

ALLOCATORS = ("as_started", "tuned")
_KEPT_MEMORY = 1.5  # an allocator that keeps its memory holds so many times what was asked for at once, at most
_TINY = 64


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step and of its parts."""

    forward_s: float
    backward_s: float
    update_s: float

    @property
    def total_s(self) -> float:
        """Return the seconds of the whole step."""
        return self.forward_s + self.backward_s + self.update_s


class StepTimer:
    """A method's centers, in a process of their own; runs its steps and says what they took.

    Its first step, which touches memory and makes choices, is not timed.
    """

    def __init__(self, method: str, case: Case, allocator: str, threads: int) -> None:
        each = max(1, threads // case.ranks)
        library, tuned = METHODS[method].library, allocator == "tuned"
        runtime = RuntimeConfig(case.device, each, float32_products=library, keep_memory=tuned)
        self._device = open_world(runtime).device
        build = METHODS[method].build
        tiny = replace(case, num_classes=_TINY * case.ranks, batch_size=_TINY * case.ranks)
        self._step(build(tiny), *next(tiny.batches()))  # loads the libraries' code, which then counts as there before
        gc.collect()
        self._before_mib = machine.used_mib(self._device)
        self._subject, self._batches = build(case), case.batches()
        self._state_mib = METHODS[method].state_mib(case)
        machine.reset_peak(self._device)
        self._step(self._subject, *next(self._batches))

    def turn(self, steps: int) -> list[StepTime]:
        """Return the times of so many steps."""
        return [self._step(self._subject, *next(self._batches)) for _ in range(steps)]

    def memory(self) -> dict[str, float]:
        """Return the peak so far, and what of it is neither centers nor momentum nor was there before them."""
        peak = machine.peak_mib(self._device)
        transient = peak - self._before_mib - self._state_mib
        return {"peak_mib": round(peak, 1), "transient_mib": round(transient, 1)}

    def _step(self, subject: Subject, embeddings: torch.Tensor, labels: torch.Tensor) -> StepTime:
        collectives.barrier()
        marks = [self._now()]
        loss = subject.head(embeddings, labels)
        marks.append(self._now())
        loss.backward()
        marks.append(self._now())
        subject.update()
        marks.append(self._now())
        return StepTime(*np.diff(marks).tolist())

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class Sizes(Protocol):
    """Where and on how many ranks a step is done."""

    @property
    def device(self) -> str:
        """Cpu or cuda."""
        ...

    @property
    def ranks(self) -> int:
        """How many processes share it."""
        ...


class Timeable(Protocol):
    """A way to do a step."""

    @property
    def name(self) -> str:
        """As the results call it."""
        ...

    def needed_mib(self, case: Any, /) -> float:
        """Return about what the processes of all ranks need for it."""
        ...


Timer = Callable[[str, Any, str, int], Any]  # method, case, allocator, threads of all ranks → turn(steps), memory()


@dataclass
class Measured:
    """The steps that a method took in a case, on its slowest rank each; or why there are none."""

    steps: list[StepTime] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    skipped: str = ""

    @property
    def spent_s(self) -> float:
        """Return the seconds of all steps."""
        return sum(step.total_s for step in self.steps)


@dataclass(frozen=True)
class Turns:
    """How often and how long each method is timed.

    Attributes:
        rounds: turns of each.
        turn_s: seconds of steps in a turn, of one step at least.
        limit_s: a method whose steps took so long gets no other turn.
        threads: of all ranks together.
    """

    rounds: int
    turn_s: float
    limit_s: float
    threads: int

    def measure(
        self, methods: Sequence[Timeable], case: Sizes, allocators: Mapping[str, str], timer: Timer = StepTimer
    ) -> dict[str, Measured]:
        """Return what each method took, by name: round after round, a turn of each, never two at once.

        ``allocators`` has each method's by its name; ``timer`` is made in its processes.

        A method's processes live until the end where those of all methods fit into memory, else for a turn.
        """
        measured = {method.name: Measured() for method in methods}
        factor = {name: _KEPT_MEMORY if kind == "tuned" else 1.0 for name, kind in allocators.items()}
        needed = {method.name: factor[method.name] * method.needed_mib(case) for method in methods}
        free = machine.free_mib(torch.device(case.device))
        for name, mib in needed.items():
            if mib > free:
                reason = f"does not fit: needs about {mib / 1024:.1f} GiB, {free / 1024:.1f} are free"
                measured[name].skipped = reason
        all_fit = sum(mib for mib in needed.values() if mib <= free) <= free
        workers: dict[str, Workers] = {}
        try:
            for _ in range(self.rounds):
                for name, found in measured.items():
                    if found.skipped or (found.steps and found.spent_s >= self.limit_s):
                        continue
                    try:
                        if name not in workers:
                            workers[name] = Workers(timer, name, case, allocators[name], self.threads, ranks=case.ranks)
                        self._take_turn(workers[name], found)
                    except NotMeasuredError as error:
                        found.skipped = f"out of memory: {error}"
                    if name in workers and (found.skipped or not all_fit):
                        workers.pop(name).close()
        finally:
            for worker in workers.values():
                worker.close()
        return measured

    def _take_turn(self, workers: Workers, found: Measured) -> None:
        if not found.steps:
            found.steps += slowest(workers.ask("turn", 1))
        steps = max(1, int(self.turn_s * len(found.steps) / found.spent_s))
        found.steps += slowest(workers.ask("turn", steps))
        ranks = workers.ask("memory")
        for key, value in [pair for rank in ranks for pair in rank.items()]:
            found.memory[key] = max(value, found.memory.get(key, value))


def slowest(ranks: Sequence[Sequence[StepTime]]) -> list[StepTime]:
    """Return each step's times on the rank that it took longest on."""
    return [max(each, key=lambda step: step.total_s) for each in zip(*ranks, strict=True)]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and 20th and 80th percentile, as a result's row has them."""
    low, median, high = np.percentile(seconds, [20, 50, 80]).tolist()
    return {"median_s": median, "p20_s": low, "p80_s": high}
