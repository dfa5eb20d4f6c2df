"""Saves that are killed: after each of them a whole checkpoint must be found, and never a torn one."""

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from arcdist.checkpoint.folder import newest_checkpoint
from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.checkpoint.reader import load

_FIRST_STEP = 1
_SAVES = 10_000  # more than a process lives to do
_TIMEOUT_S = 120.0  # longest wait for a process to save


def kills_during_saves(
    kills: int, seed: int, numbers: int = 2_000_000, done: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Kill a process that saves without a pause, again and again, and return what was found after each kill.

    It is ended by SIGKILL when the bytes that it has written of a save, or the time since it began one, reach a number
    drawn from the seed. The next one goes on from the newest checkpoint.

    Args:
        kills: processes that are killed.
        seed: of the moments.
        numbers: float32 in a checkpoint.
        done: is called after each kill.

    Returns:
        ``kills``; ``torn``, how often what was found was not what had been saved; ``lost``, how often none was found;
        ``back``, how often it was older than what had been found before; ``while_writing``, how many kills left a
        folder that was being written; ``new_checkpoints``, how many processes had finished at least one; ``survived``,
        whether nothing was torn, lost or old.

    Errors: CheckpointError where a process does not save.
    """
    draws = random.Random(seed)
    counts = dict.fromkeys(("torn", "lost", "back", "while_writing", "new_checkpoints"), 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder, newest = Path(scratch), _FIRST_STEP
        save_s = _save_one(folder, numbers)
        for _ in range(kills):
            _kill_one(folder, newest + 1, draws, save_s, numbers)
            done()
            found = newest_checkpoint(folder)
            if found is None:
                counts["lost"] += 1
                _save_one(folder, numbers)
                newest = _FIRST_STEP
                continue
            step = read_marker(found)["step"]
            counts["torn"] += not _as_saved(found, step, numbers)
            counts["back"] += step < newest
            counts["new_checkpoints"] += step > newest
            counts["while_writing"] += any(folder.glob(".writing-step-*"))
            newest = step
    survived = not (counts["torn"] or counts["lost"] or counts["back"])
    return {"kills": kills, "numbers": numbers, **counts, "survived": survived}


def _process(folder: Path, first_step: int, numbers: int, count: int) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_save, args=(folder, first_step, numbers, count), daemon=True)
    process.start()
    return process


def _save_one(folder: Path, numbers: int) -> float:
    """Save the first step in a process of its own, and return about how many seconds the save took."""
    process = _process(folder, _FIRST_STEP, numbers, 1)
    try:
        next(_writing(folder, set(), process, _TIMEOUT_S))
        began = time.monotonic()
        process.join(_TIMEOUT_S)
        if process.exitcode != 0:
            raise CheckpointError(f"{folder}: the first save ended with {process.exitcode}")
        return time.monotonic() - began
    finally:
        process.kill()


def _kill_one(folder: Path, first_step: int, draws: random.Random, save_s: float, numbers: int) -> None:
    """Kill a process that saves at a drawn byte of its first save, or at a drawn time of its first two."""
    by_bytes, share = draws.random() < 0.5, draws.random()
    before = set(folder.glob(".writing-step-*"))
    process = _process(folder, first_step, numbers, _SAVES)
    try:
        for first, written in _writing(folder, before, process, _TIMEOUT_S):
            if not by_bytes:
                time.sleep(2 * save_s * share)
                break
            if written >= share * 6 * numbers or not first.exists():  # the backbone, half of all, twice
                break
    finally:
        process.kill()
        process.join()


def _writing(folder: Path, before: set[Path], process: BaseProcess, timeout_s: float) -> Iterator[tuple[Path, int]]:
    """Yield, again and again, the folder of the first save that a process begins, and the bytes in it.

    Args:
        folder: of the checkpoints.
        before: what an earlier process has left there.
        process: that saves.
        timeout_s: longest wait.

    Errors: CheckpointError where the process ends by itself, or takes longer.
    """
    limit, first = time.monotonic() + timeout_s, None
    while process.is_alive() and time.monotonic() < limit:
        first = first or next(iter(set(folder.glob(".writing-step-*")) - before), None)
        if first:
            yield first, _bytes_in(first)
        time.sleep(5e-4)
    state = "takes too long" if process.is_alive() else f"ended by itself with {process.exitcode}"
    raise CheckpointError(f"{folder}: a process that saves {state}")


def _bytes_in(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0


def _save(folder: Path, first_step: int, numbers: int, count: int) -> None:
    torch.set_num_threads(1)
    manager = CheckpointManager(folder, CheckpointConfig())
    state = _state(first_step, numbers)
    manager.prepare(state)
    for step in range(first_step, first_step + count):
        for name, tensor in _state(step, numbers).items():
            state[name].copy_(tensor)
        manager.save(step, state, {"config": {}}, wait=True)
        if fault := manager.wait():
            raise CheckpointError(fault)


def _as_saved(checkpoint: Path, step: int, numbers: int) -> bool:
    state = _state(0, numbers)
    load(checkpoint, state)
    return all(torch.equal(state[name], expected) for name, expected in _state(step, numbers).items())


def _state(step: int, numbers: int) -> dict[str, torch.Tensor]:
    return {
        "backbone.weight": torch.full((numbers // 2,), float(step)),
        "optimizer.momentum": torch.full((numbers // 2,), -float(step)),
    }
