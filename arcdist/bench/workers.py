"""Processes that hold something each, and do with it what they are asked."""

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from arcdist.errors import ArcdistError

_IMPORTED_ONCE = ["arcdist.bench.timing", "torch._dynamo"]  # not by each process; optimizers import the latter


class NotMeasuredError(ArcdistError):
    """What was asked for could not be measured on this machine: its memory is too small."""


class Workers:
    """Processes, the ranks of one world, that hold an object each and call its methods; what they return must pickle.

    Args:
        make: a class, or a function at the top of a module, that each process makes its object with.
        arguments: for ``make``.
        ranks: how many processes.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, ranks: int = 1) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        context.set_forkserver_preload(_IMPORTED_ONCE)
        port = _free_port()
        self._processes: dict[Connection, Any] = {}
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            place = {
                "RANK": rank,
                "LOCAL_RANK": 0,
                "WORLD_SIZE": ranks,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            environment = {key: str(value) for key, value in place.items()} if ranks > 1 else {}
            process = context.Process(target=_serve, args=(theirs, environment, make, arguments), daemon=True)
            self._processes[ours] = process
            process.start()
            theirs.close()
        try:
            self._answers()
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return what each rank's method returns.

        Raises NotMeasuredError where a process ran out of memory or was killed, RuntimeError with the process's
        traceback for anything else that it raised.
        """
        for pipe in self._processes:
            pipe.send((method, arguments))
        return self._answers()

    def _answers(self) -> list[Any]:
        answers: dict[Connection, Any] = {}
        while len(answers) < len(self._processes):  # the first that fails speaks; the others only wait for it
            for pipe in wait([pipe for pipe in self._processes if pipe not in answers]):
                assert isinstance(pipe, Connection)
                answers[pipe] = self._answer(pipe)
        return [answers[pipe] for pipe in self._processes]

    def _answer(self, pipe: Connection) -> Any:
        try:
            outcome, value = pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[pipe]
            process.join(timeout=10)
            raise NotMeasuredError(f"its process ended with code {process.exitcode}") from None
        if outcome == "returned":
            return value
        raise NotMeasuredError(value) if outcome == "out of memory" else RuntimeError(value)

    def close(self) -> None:
        """End the processes, and so give back all that they held."""
        for pipe, process in self._processes.items():
            process.kill()
            process.join()
            pipe.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _serve(
    pipe: Connection, environment: Mapping[str, str], make: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    os.environ.update(environment)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs out, it is this process that the kernel ends
    held: list[Any] = []
    call: Callable[..., Any] = lambda: held.append(make(*arguments))  # noqa: E731
    given: Sequence[Any] = ()
    while True:
        try:
            answer = ("returned", call(*given))
        except Exception as error:
            full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
            answer = ("out of memory", str(error).splitlines()[0]) if full else ("failed", traceback.format_exc())
        try:
            pipe.send(answer)
            name, given = pipe.recv()
        except (EOFError, BrokenPipeError):  # the one who asks is gone
            return
        call = getattr(held[0], name)
