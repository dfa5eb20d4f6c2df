"""When a run is saved, beside training, and what it goes on from."""

import datetime
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from arcdist.checkpoint import retention
from arcdist.checkpoint.arcface_torch import is_arcface_torch
from arcdist.checkpoint.folder import (
    WEIGHTS,
    fault_of,
    keep_weights,
    marked_checkpoints,
    place_of,
    remove_leftovers,
)
from arcdist.checkpoint.lock import RunLock
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.checkpoint.schema import migrated
from arcdist.checkpoint.space import checkpoint_bytes, look_at
from arcdist.checkpoint.staging import Staging
from arcdist.errors import ConfigError
from arcdist.runtime import collectives

_log = logging.getLogger("arcdist")


@dataclass
class CheckpointConfig:
    """When a run is saved, and what stays."""

    every: int = field(default=1000, metadata={"help": "steps between two checkpoints; 0 saves at the end only"})
    keep: int = field(default=2, metadata={"help": "newest checkpoints that stay on disk, at least 2"})
    keep_every: int = field(default=0, metadata={"help": "steps whose multiples' checkpoints stay for good; 0: none"})
    best: str = field(
        default="",
        metadata={"help": "SET.METRIC, as lfw.accuracy: a step that is best by it is saved, and stays; empty: none"},
    )
    background: bool = field(
        default=True, metadata={"help": "write while training goes on; false: training waits until it is written"}
    )
    timeout_s: int = field(default=1800, metadata={"help": "longest wait of a writing rank for another, in seconds"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.every < 0:
            raise ConfigError(f"checkpoint.every: {self.every}: must be 0 (at the end only) or more")
        if self.keep < 2:
            raise ConfigError(f"checkpoint.keep: {self.keep}: must be at least 2; one alone may be the damaged one")
        if self.keep_every < 0:
            raise ConfigError(f"checkpoint.keep_every: {self.keep_every}: must be 0 (none) or more")
        if self.timeout_s < 1:
            raise ConfigError(f"checkpoint.timeout_s: {self.timeout_s}: must be at least 1")


class CheckpointManager:
    """The checkpoints of one run. Every rank makes one and calls the same methods in the same order.

    Args:
        folder: of the checkpoints.
        config: when and what.

    Memory: this rank's part of a checkpoint, in host memory (pinned where there is a GPU), as long as the run; on rank
    0, while one is written, also the weights that ranks share out.
    """

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder, self.config = folder, config
        self._staging = Staging()
        self._group: ProcessGroup | None = None
        self._mesh: DeviceMesh | None = None
        self._pending: Future[str | None] | None = None
        self._fault: str | None = None
        self._lost = False
        self._join()

    def _join(self) -> None:
        """Open a process group for the writers alone: what they send must not mix with training's."""
        if collectives.is_distributed():
            timeout = datetime.timedelta(seconds=self.config.timeout_s)
            self._group = dist.new_group(backend="gloo", timeout=timeout)
            self._mesh = DeviceMesh.from_group(self._group, "cpu")

    def _join_again(self) -> None:
        """Open another group in the place of one in which ranks have lost each other; while nothing is written."""
        if any(collectives.gather_objects(self._lost)):
            if self._group is not None:
                dist.destroy_process_group(self._group)
            self._join()
            self._lost = False

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the folder for this run, look whether checkpoints fit into it, and make the buffers they are staged in.

        Errors: CheckpointError where another run writes into the folder, or nothing can be written there.
        """
        collectives.from_rank_0(lambda: self._take_folder(tensors))
        self._staging.reserve(tensors)

    def _take_folder(self, tensors: Mapping[str, Tensor]) -> None:
        look_at(self.folder, checkpoint_bytes(tensors), self.config.keep)
        self._lock = RunLock(self.folder)
        remove_leftovers(self.folder)

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any], wait: bool = False) -> None:
        """Begin to save, and return when the tensors may change again; one of the same step is replaced.

        Where the last save is not done yet, this one is left out with a warning, so that none overtakes another and
        a slow disk does not keep training from going on. A save that fails is told in the log, and by ``wait``.

        Args:
            step: optimizer steps done.
            tensors: as ``training_tensors`` names them.
            about: JSON-able, kept in the marker. Its ``config`` is compared on resuming; its ``metrics``, numbers by
                name, say how good this step is.
            wait: first for the last save, then for this one.
        """
        if wait:
            self.wait()
        states = collectives.gather_objects((self._is_pending(), secrets.token_hex(8)))
        if any(pending for pending, _ in states):
            if collectives.rank() == 0:
                _log.warning("step %d is not saved: the checkpoint before it is still being written", step)
            return
        self._join_again()
        marker = {"metrics": {}, **about, "step": step, "keys": sorted(tensors)}
        kept = (self.config.keep, self.config.keep_every, self.config.best)
        staged = self._staging.copy(tensors, self._mesh)
        self._begin((place_of(self.folder, step), states[0][1], staged, marker, self._group, *kept))
        if wait or not self.config.background:
            self.wait()

    def _begin(self, what: tuple[Any, ...]) -> None:
        """Begin a ``Save``, whose arguments are given."""
        pending: Future[str | None] = Future()

        def run() -> None:
            start = time.monotonic()
            try:
                from arcdist.checkpoint.commit import Save  # a second to import: no step waits for it

                save = Save(*what)
                fault = save.write()
                if fault and collectives.rank() == 0:
                    _log.warning("NOT SAVED: %s; training goes on, and the checkpoints before it stay", fault)
                elif collectives.rank() == 0:
                    _log.info("saved %s in %.1f s", save.final, time.monotonic() - start)
                pending.set_result(fault)
            except BaseException as error:
                pending.set_exception(error)

        self._fault, self._lost, self._pending = None, False, pending
        # A daemon: a rank that fails ends at once, and what it was writing never counts.
        threading.Thread(target=run, name="checkpoint", daemon=True).start()

    def _is_pending(self) -> bool:
        if self._pending is not None and self._pending.done():
            self.wait()
        return self._pending is not None

    def wait(self, timeout_s: float | None = None) -> str | None:
        """Wait until nothing is being written, and return why the last save failed, None where it did not.

        Args:
            timeout_s: longest wait; what is not written by then is given up when the process ends.
        """
        if self._pending is not None:
            try:
                self._fault = self._pending.result(timeout_s)
            except Exception as error:
                self._lost = self._pending.done()
                self._fault = f"{self.folder}: not written: {str(error) or 'the disk takes too long'}"
                _log.warning("%s", self._fault)
            if self._pending.done():
                self._pending = None
        return self._fault

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether a step is better, by ``checkpoint.best``, than every checkpoint; the same on every rank.

        Args:
            metrics: by name; empty for a step that was not evaluated.
        """
        name = self.config.best
        if name not in metrics:
            return False
        self.wait()
        return collectives.from_rank_0(
            lambda: retention.beats(name, metrics[name], dict(marked_checkpoints(self.folder)))
        )

    def keep_weights(self, step: int, folder: Path) -> dict[str, Any]:
        """Leave a step's backbone in a run's folder, and the best one's; return which is best, if any. On one rank."""
        keep_weights(place_of(self.folder, step), folder / WEIGHTS)
        name = self.config.best
        best = retention.best(name, dict(marked_checkpoints(self.folder)))
        if best is None:
            return {}
        keep_weights(best, folder / f"best.{WEIGHTS}")
        marker = read_marker(best)
        return {"best": {"metric": name, "value": marker["metrics"][name], "step": marker["step"]}}

    def find(self, resume: str) -> Path | None:
        """Return the checkpoint that a run goes on from, whole and the same on every rank; None: it begins anew.

        Args:
            resume: ``auto``: the newest whole one. ``never``: none; there must be none. Else the folder of a
                checkpoint, of a run, or of one of arcface_torch; but the newest one of this run, where that has itself
                begun so: the same command, started again, does not go back. A worker that the launcher started again
                goes on.

        Errors: CheckpointError where that is no checkpoint, or a damaged one; NewerError where a newer arcdist has
            written into the folder.
        """
        if resume == "never" and not _restarted():
            collectives.from_rank_0(self._refuse_what_is_there)
            return None
        newest = self.newest(self.folder)
        if resume in ("auto", "never") or (newest and self._began_with(newest) == resume):
            return newest
        given = Path(resume)
        if collectives.from_rank_0(lambda: is_arcface_torch(given)):
            return given
        if collectives.from_rank_0((given / "checkpoints").is_dir):
            newest = self.newest(given / "checkpoints")
            if newest is None:
                raise CheckpointError(f"resume: {given}: this run has left no whole checkpoint")
            return newest
        marker = collectives.from_rank_0(lambda: read_marker(given))
        fault = self._fault_of(given, marker["files"])
        if fault:
            raise CheckpointError(f"resume: {given}: {fault}")
        return given

    def _refuse_what_is_there(self) -> None:
        if any(self.folder.glob("step-*")):
            raise ConfigError(
                f"resume: 'never', but {self.folder} holds a run; resume=auto goes on with it, another name= or "
                "folder= starts a new one"
            )

    def _began_with(self, checkpoint: Path) -> str | None:
        return collectives.from_rank_0(lambda: migrated(read_marker(checkpoint)["config"], checkpoint).get("resume"))

    def newest(self, folder: Path) -> Path | None:
        """Return the newest whole checkpoint, the same on every rank, or None; damaged ones are named and passed over.

        Cost: every rank reads its share of the files of the checkpoint that it answers.
        """
        self._join_again()
        for path, files in collectives.from_rank_0(
            lambda: [(path, marker["files"]) for path, marker in marked_checkpoints(folder)][::-1]
        ):
            fault = self._fault_of(path, files)
            if fault is None:
                return path
            if collectives.rank() == 0:
                _log.warning("checkpoint %s is passed over: %s", path, fault)
        return None

    def _fault_of(self, checkpoint: Path, files: Mapping[str, Any]) -> str | None:
        mine = sorted(files)[collectives.rank() :: collectives.world_size()]
        fault = fault_of(checkpoint, {name: files[name] for name in mine})
        if self._group is None:
            return fault
        faults: list[str | None] = [None] * collectives.world_size()
        dist.all_gather_object(faults, fault, group=self._group)
        return next((fault for fault in faults if fault), None)


def _restarted() -> bool:
    """Return whether the launcher has started this worker again, after a failure of the run."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
