"""Real ranks for tests, cheaply: processes forked from a server that has imported torch once."""

import contextlib
import multiprocessing
import os
import pickle
import resource
import tempfile
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# One server for all tests, with one list of what it imports: whoever sets another makes every rank import torch.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("torch", "torch.distributed.checkpoint", "torch.distributed.run", "torch._dynamo"),
        *("support", "arcdist.cli.train", "arcdist.train.trainer", "arcdist.evaluate.plots", "arcdist.prepare.pack"),
    ]
)
_TIMEOUT_S = 120


@contextlib.contextmanager
def full_disk(most: int) -> Generator[None, None, None]:
    """Let no file of this process grow beyond so many bytes: a write raises OSError, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_ranks(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """Return what ``function(*arguments)`` returned on each of ``world_size`` gloo ranks, in their order.

    The function must stand at the top of a module, its arguments and result must pickle. A rank that fails fails the
    test with its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        queue = CONTEXT.Queue()
        ranks = [
            CONTEXT.Process(target=_rank, args=(queue, folder, rank, world_size, function, arguments), daemon=True)
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            answers = [pickle.loads(queue.get(timeout=_TIMEOUT_S)) for _ in ranks]
        finally:
            for process in ranks:
                process.join(timeout=10)
                process.kill()
    failures = [f"rank {rank}:\n{text}" for rank, ok, text in answers if not ok]
    assert not failures, "\n".join(failures)
    return [value for _, _, value in sorted(answers, key=lambda answer: answer[0])]


def end_of_ranks(
    function: Callable[..., None], world_size: int, folder: Path, *arguments: Any
) -> list[tuple["int | None", str]]:
    """Return the exit code of each rank that did ``function(*arguments)``, and what it said.

    That of a rank which has not ended some seconds after rank 0, as one that has stopped itself, is None.
    """
    targets = [(function, rank, world_size, folder, arguments) for rank in range(world_size)]
    ranks = [CONTEXT.Process(target=_rank_that_ends, args=target, daemon=True) for target in targets]
    for process in ranks:
        process.start()
    try:
        ranks[0].join(200)
        ranks[-1].join(5)
        return [(process.exitcode, (folder / f"rank{n}.txt").read_text()) for n, process in enumerate(ranks)]
    finally:
        for process in ranks:
            process.kill()


def _rank_that_ends(
    function: Callable[..., None], rank: int, world_size: int, folder: Path, arguments: tuple[Any, ...]
) -> None:
    os.dup2(os.open(folder / f"rank{rank}.txt", os.O_CREAT | os.O_WRONLY), 2)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    function(*arguments)


def _rank(
    queue: Any, folder: str, rank: int, world_size: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
        answer = (rank, True, function(*arguments))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        answer = (rank, False, traceback.format_exc())
    queue.put(pickle.dumps(answer))  # by value: a tensor put as it is would live in this process's memory
    queue.close()
    queue.join_thread()
