"""The run that faults happen to: a small one, held against one that nothing has happened to."""

import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcdist.bench.launched import Launched, LaunchedRunError
from arcdist.checkpoint.folder import newest_checkpoint
from arcdist.checkpoint.marker import read_marker
from arcdist.checkpoint.reader import read_tensors
from arcdist.data.synthetic import SyntheticConfig, write_pairs, write_record
from arcdist.runtime.stopping import FINISHED

EVERY = 10  # steps between two checkpoints
EVALUATE_EVERY = 15
BATCH = 24  # of one, two, three or six ranks
_IDENTITIES, _IMAGES_EACH = 14, 12
EPOCH = _IDENTITIES * _IMAGES_EACH / BATCH  # steps: 7
_PAIRS, _IMAGE_PX = 40, 32
ONE_NODE = ("--standalone", "--local-addr=127.0.0.1")  # the name of a machine may take seconds to look up
# SIGUSR1 is not among those that torchrun hands on by itself: it dies of it.
TORCHRUN = ("--monitor-interval=0.1", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")


@dataclass(frozen=True)
class Subject:
    """What is run.

    Args:
        scratch: a folder for the data, the runs and their logs.
        steps: of the whole run.
        launch: how a run is started.
        extra: further arguments of ``arcdist train``, which outweigh those of every run here.
        timeout_s: longest wait for anything.
    """

    scratch: Path
    steps: int
    launch: type[Launched] = Launched
    extra: tuple[str, ...] = ()
    timeout_s: float = 120.0

    def start(self, name: str, *torchrun: str, **how: Any) -> Launched:
        """Start the run ``name``, or go on with it.

        Args:
            name: of its folder.
            torchrun: its options, on top of those that every run here has.
            how: further arguments of ``Launched``.
        """
        self._render()
        log = self.scratch / f"{name}.log"
        return self.launch([*TORCHRUN, *torchrun], self._arguments(), self.scratch / name, log, **how)

    def undisturbed(self, ranks: int, name: str = "undisturbed") -> "Ended":
        """Do the run on so many ranks without a fault, and return how it ended."""
        with self.start(name, *ONE_NODE, f"--nproc-per-node={ranks}") as run:
            run.wait_for("ranks", lambda: len(run.ranks()) == ranks, self.timeout_s)
            began = time.monotonic()
            run.wait_for("the first step", run.step, self.timeout_s)
            first = time.monotonic()
            run.wait_for("the last step", lambda: run.step() == self.steps, self.timeout_s + self.steps, 0.02)
            step_s = (time.monotonic() - first) / self.steps
            run.wait(self.timeout_s + self.steps)
        return Ended(run, start_s=first - began, step_s=step_s)

    def _render(self) -> None:
        faces = SyntheticConfig(identities=_IDENTITIES, images_per_identity=_IMAGES_EACH, image_size=_IMAGE_PX)
        if not self._held_out.exists():
            write_record(faces, self.scratch / "train.rec", workers=1)
            write_pairs(faces, self._held_out, _PAIRS, workers=1)

    @property
    def _held_out(self) -> Path:
        return self.scratch / "held_out.bin"

    def _arguments(self) -> list[str]:
        return [
            *("data=recordio", f"data.path={self.scratch}/train.rec", f"data.image_size={_IMAGE_PX}"),
            *("data.loader.workers=1", "augment=flip", "backbone=tiny", "backbone.embedding_dim=32"),
            *("margin=curricularface", "margin.scale=16", "head.sample_rate=0.5"),
            *("optim=adamw", "optim.lr=2e-4", f"train.steps={self.steps}", f"train.global_batch_size={BATCH}"),
            *("train.precision=fp32", "train.log_every=1"),
            *(f"evaluate.sets=[{self._held_out}]", f"evaluate.every={EVALUATE_EVERY}"),
            *(f"checkpoint.every={EVERY}", "checkpoint.background=false"),
            *("runtime.device=cpu", "runtime.threads=1", "runtime.timeout_s=60", *self.extra),
        ]


class Ended:
    """What a finished run has left.

    Args:
        run: that has ended.
        start_s: how long its ranks took to their first step.
        step_s: how long a step took, with its share of evaluations and checkpoints.

    Attributes:
        train_s: seconds of training.

    Errors: LaunchedRunError where it has not finished.
    """

    def __init__(self, run: Launched, start_s: float = 0.0, step_s: float = 0.0) -> None:
        last = newest_checkpoint(run.folder / "checkpoints")
        if not (run.folder / FINISHED).exists() or last is None:
            raise LaunchedRunError(f"{run.folder}: has not finished; it said:\n{run.said()[-3000:]}")
        self.tensors = read_tensors(last)
        self.start_s, self.step_s = start_s, step_s
        self.train_s = read_marker(last)["train_s"]
        self.save_s = statistics.median(map(float, re.findall(r"saved \S+ in ([\d.]+) s", run.said())))

    def equals(self, other: "Ended") -> bool:
        """Return whether backbone, head and optimizer of two runs are the same, bit for bit."""
        mine, others = self.tensors, other.tensors
        return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)

    def distance(self, other: "Ended") -> float:
        """Return how far the weights of two runs are apart, relative to their length."""
        mine, others = self._weights(), other._weights()
        return float((mine - others).norm() / others.norm())

    def _weights(self) -> Tensor:
        named = [(name, tensor) for name, tensor in sorted(self.tensors.items()) if not name.startswith("optimizer.")]
        return torch.cat([tensor.double().flatten() for _, tensor in named if tensor.is_floating_point()])


def attempts(said: str) -> list[int]:
    """Return the step that each attempt of a run began to train from, as its log tells."""
    begun, first = [], 0
    for resumed, begins in re.findall(r"resumed from \S+, step (\d+) of|(batches by)", said):
        if begins:
            begun.append(first)
            first = 0
        else:
            first = int(resumed)
    return begun


def all_gone(pids: Iterable[int], timeout_s: float) -> bool:
    """Return whether all of some processes end within a time."""
    limit = time.monotonic() + timeout_s
    left = list(pids)
    while left and time.monotonic() < limit:
        left = [pid for pid in left if _is_there(pid)]
        time.sleep(0.02)
    return not left


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
