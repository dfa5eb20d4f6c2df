"""Real ranks for tests, cheaply: processes forked from a server that has imported torch once."""

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
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
