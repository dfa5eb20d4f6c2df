"""torchrun without its cost: its own agent, whose ranks are forked from a server that has imported torch once."""

import ctypes
import os
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

from support import CONTEXT

from arcdist.bench.launched import Launched


class ForkedLaunch(Launched):
    """A run under torchrun whose processes begin by a fork, where those of ``Launched`` begin by a command.

    ``FORKED_NETWORK`` in its environment names the network namespace that they live in.

    Attributes:
        pids: a folder of files, each named by a rank's process; it holds the rank, and at its end what it ended with.
    """

    def _start(self, before: list[str], torchrun: list[str], arguments: list[str]) -> int:
        assert not before
        self.pids = self.log.with_name(f"{self.log.name}.{time.monotonic_ns()}.pids")
        self.pids.mkdir()
        command = [*torchrun, "--module", "arcdist", "train", *arguments]
        environment = {**self.environment, "FORKED_PIDS": str(self.pids), "FORKED_LOG": str(self.log)}
        forkserver.ensure_running()
        self._agent = CONTEXT.Process(
            target=_agent, args=(command, environment, forkserver._forkserver._forkserver_address)
        )
        self._agent.start()
        assert self._agent.pid is not None
        return self._agent.pid

    def code(self) -> "int | None":
        return self._agent.exitcode

    def descendants(self) -> list[int]:
        return [pid for _, pid in self._there()]

    def ranks(self) -> dict[int, int]:
        return dict(self._there())

    def _there(self) -> list[tuple[int, int]]:
        """Return rank and process of each that has not ended, as they were started."""
        started = sorted(self.pids.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        told = [(path.read_text().split(), int(path.name)) for path in started]  # a rank, and its code if it has ended
        return [(int(said[0]), pid) for said, pid in told if len(said) == 1 and Path(f"/proc/{pid}").exists()]

    def _reap(self) -> None:
        self._agent.join()


def _agent(command: list[str], environment: dict[str, str], server: str) -> None:
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler
    from torch.distributed.run import main

    _take_over(environment)
    # The ranks are forked from the server that this process was forked from: another would import torch again.
    forkserver._forkserver._forkserver_address, forkserver._forkserver.ensure_running = server, lambda: None
    SubprocessHandler._popen = lambda self, args, env: _ForkedRank(args, env)
    main(command)


class _ForkedRank:
    """What ``subprocess.Popen`` is to torchrun's agent."""

    def __init__(self, args: tuple[str, ...], env: dict[str, str]) -> None:
        self._process = CONTEXT.Process(target=_rank, args=(list(args), env))
        self._process.start()
        self.pid = self._process.pid
        while self._process.is_alive() and os.getpgid(self.pid) != self.pid:
            time.sleep(1e-3)

    def poll(self) -> "int | None":
        return self._process.exitcode

    def wait(self, timeout: "float | None" = None) -> "int | None":
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("rank", timeout or 0)
        return self._process.exitcode


def _rank(args: list[str], environment: dict[str, str]) -> None:
    from arcdist.cli.main import main

    os.setsid()
    told = Path(environment["FORKED_PIDS"]) / str(os.getpid())
    told.write_text(environment["RANK"])
    _take_over(environment)
    code = main(args[args.index("arcdist") + 1 :])
    told.write_text(f"{environment['RANK']} {code}")
    sys.exit(code)


def _take_over(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if "FORKED_NETWORK" in environment:
        network = os.open(f"/run/netns/{environment['FORKED_NETWORK']}", os.O_RDONLY)
        assert ctypes.CDLL(None, use_errno=True).setns(network, 0) == 0
        os.close(network)
    handle = os.open(environment["FORKED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
