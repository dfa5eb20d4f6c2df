"""What looking after a run costs: determinism, void steps, comparing ranks, the slowest rank, the hang watch."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from arcdist.backbones import backbone_names
from arcdist.bench import machine
from arcdist.bench.timing import spread
from arcdist.bench.whole_steps import STEP_METHODS, OurStep, StepCase
from arcdist.bench.workers import Workers
from arcdist.checkpoint.state import held_alike, training_tensors
from arcdist.errors import ConfigError
from arcdist.runtime import collectives
from arcdist.runtime.agreement import check_agreement
from arcdist.runtime.cores import usable_cores
from arcdist.runtime.hang_watch import HangWatch
from arcdist.runtime.world import RuntimeConfig, open_world
from arcdist.train.config import LoopConfig

_EVERY = {  # steps that each guard acts once in, as a run has it by default
    "void steps": 1,
    "hang watch": 1,
    "slowest rank": LoopConfig.log_every,
    "comparing ranks": RuntimeConfig.check_every,
}


@dataclass
class GuardsConfig:
    """Whose steps, and how many."""

    backbone: str = field(default="mbf", metadata={"help": "by name"})
    classes: int = field(default=10_000, metadata={"help": "number of them"})
    batch: int = field(default=32, metadata={"help": "global batch size"})
    ranks: int = field(default=2, metadata={"help": "number of processes that share the batch"})
    rounds: int = field(default=10, metadata={"help": "turns, with deterministic kernels and without by turns"})
    steps: int = field(default=3, metadata={"help": "of a turn"})
    threads: int = field(default=0, metadata={"help": "of a CPU; 0: one a core"})
    json: str = field(default="", metadata={"help": "file for the result"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.backbone not in backbone_names():
            raise ConfigError(f"backbone: {self.backbone!r}: must be of {', '.join(backbone_names())}")
        if self.ranks < 1 or self.batch < 2 * self.ranks or self.batch % self.ranks:
            raise ConfigError(
                f"batch: {self.batch}: must be a multiple of ranks, {self.ranks}, and two for each at least"
            )
        if min(self.rounds, self.steps) < 1 or self.classes < self.ranks or self.threads < 0:
            raise ConfigError("rounds and steps: at least 1; classes: one a rank at least; threads: not negative")


def bench_guards(config: GuardsConfig) -> dict[str, Any]:
    """Return what each guard takes, ready for JSON.

    ``step``: seconds of a whole step, with all guards; ``deterministic``: the same with ``runtime.deterministic``, and
    how many times as long. ``guards``: of each, seconds of one act, how many steps it comes once in, and its share of a
    step's time. All are of the slowest rank, in one run each, by turns.
    """
    config.validate()
    device, threads = "cuda" if torch.cuda.is_available() else "cpu", config.threads or usable_cores()
    case = StepCase(config.backbone, config.classes, config.batch, device=device, ranks=config.ranks)
    before = machine.description(torch.device(device), threads)
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(closing(Workers(GuardedSteps, case, threads, wanted, ranks=config.ranks)))
            for name, wanted in (("usual", False), ("deterministic", True))
        }
        for _ in track(
            range(config.rounds), "turns", console=Console(stderr=True), transient=True, disable=not config.progress
        ):
            for name, worker in workers.items():
                for part, times in _slowest(worker.ask("turn", config.steps)).items():
                    found.setdefault(name, defaultdict(list))[part] += times
    step_s = statistics.median(found["usual"]["step"])
    guards = {}
    for name, every in _EVERY.items():
        act_s = statistics.median(found["usual"][name])
        guards[name] = {"median_s": act_s, "every": every, "share": act_s / every / step_s}
    return {
        "command": f"arcdist bench guards backbone={config.backbone} ranks={config.ranks} batch={config.batch} "
        f"rounds={config.rounds} steps={config.steps}",
        "bench": "guards",
        **before,
        "case": vars(case),
        "step": spread(found["usual"]["step"]),
        "deterministic": {
            **spread(found["deterministic"]["step"]),
            "times": statistics.median(found["deterministic"]["step"]) / step_s,
        },
        "guards": guards,
        "share_of_all": sum(guard["share"] for guard in guards.values()),
    }


def _slowest(ranks: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {part: [max(times) for times in zip(*(rank[part] for rank in ranks))] for part in ranks[0]}


class GuardedSteps:
    """Steps of one rank, each guard of which is timed where a run has it."""

    def __init__(self, case: StepCase, threads: int, deterministic: bool) -> None:
        each = max(1, threads // case.ranks)
        self._world = open_world(RuntimeConfig(case.device, each, deterministic=deterministic))
        ours = STEP_METHODS["ours_fp32"].build(case, self._world)
        assert isinstance(ours, OurStep)
        self._step, self._batches = ours.step, case.batches()
        self._watch = HangWatch(RuntimeConfig.step_timeout_s, self._world.rank)
        self._watch.open()
        self._void_s = 0.0
        for owner, name in (
            *((self._step, "_gradient_norm"), (self._step, "_move_head_state")),
            *((self._step.verdicts, "add"), (self._step.verdicts, "read")),
        ):
            setattr(owner, name, self._timed(getattr(owner, name)))
        self.turn(1)  # touches memory and makes choices

    def turn(self, steps: int) -> dict[str, list[float]]:
        """Return the seconds of so many steps and of each guard after them."""
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(steps):
            batch = next(self._batches)
            collectives.barrier()
            self._void_s, start = 0.0, self._now()
            self._step(batch)
            self._step.verdicts.read()
            times["step"].append(self._now() - start)
            times["void steps"].append(self._void_s)
            times["hang watch"].append(self._seconds(self._name_two_phases))
            times["slowest rank"].append(self._seconds(lambda: self._step.stragglers.report(0)))
            times["comparing ranks"].append(self._seconds(self._compare))
        return dict(times)

    def _name_two_phases(self) -> None:
        self._watch.at("the batch")
        self._watch.at("the step")

    def _compare(self) -> None:
        step, head = self._step, self._step.head
        tensors = training_tensors(step.backbone, head.centers, head.num_classes, step.optimizer)
        check_agreement(held_alike(tensors), step.count)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = self._now()
            answer = function(*arguments)
            self._void_s += self._now() - start
            return answer

        return timed

    def _seconds(self, function: Callable[[], Any]) -> float:
        collectives.barrier()
        start = self._now()
        function()
        return self._now() - start

    def _now(self) -> float:
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)
        return time.perf_counter()
