"""Two nodes whose link is cut in the middle of a run: network namespaces of this machine, joined by a virtual cable."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import arcdist
from arcdist.bench.faults_nodes import RENDEZVOUS_PORT, ROUNDING, node_options, the_same_on
from arcdist.bench.faults_run import EVERY, Ended, Subject, attempts
from arcdist.bench.launched import Launched
from arcdist.checkpoint.marker import CheckpointError, read_marker

_RELAUNCH = Path(arcdist.__file__).parent.parent / "launch/relaunch.sh"
_WAIT_S = 20  # of a rank for another: more than the short cut, less than the long one
_REJOIN_S = 60.0  # from the link's return on: torchrun gives up, and is started again
_LONGEST_S = 150.0
_LOOK_S = 0.02


class Host(NamedTuple):
    """A network namespace."""

    name: str
    address: str
    interface: str


def missing() -> str:
    """Return what this machine lacks for it, empty where it lacks nothing."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "needs root and iproute2, to make network namespaces"
    return "" if _RELAUNCH.exists() else f"needs {_RELAUNCH}, which a checkout has"


def cut_link(short_s: float = 5.0, long_s: float = 60.0, done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Cut the link of two nodes for a short and for a long time, and return what came of it.

    Both are started by ``launch/relaunch.sh`` and have one folder; the first has the rendezvous.

    Args:
        short_s: less than the ranks wait for each other.
        long_s: more than that.
        done: is called after each cut.

    Returns:
        ``short`` and ``long``, what came of each cut: ``gap_s``, the longest time without a step; ``nodes``, the
        fewest that trained meanwhile; ``attempts``, how often ranks were started anew until two nodes trained again,
        and ``together_after_s``, how long after its beginning that was. ``distance`` of the weights from those of an
        undisturbed process, relative; ``survived``, whether all that is as it must be.

    Errors: LaunchedRunError where the run does not go on.
    """
    with tempfile.TemporaryDirectory() as scratch, two_hosts() as hosts, contextlib.ExitStack() as started:
        # Evaluated after every step it takes longer, and the undisturbed run, which is not, has fewer steps to do.
        slow = Subject(
            Path(scratch), 4 * EVERY, extra=(*the_same_on(2), f"runtime.timeout_s={_WAIT_S}", "evaluate.every=1")
        )
        step_s = slow.undisturbed(1, "probe").step_s
        subject = replace(slow, steps=round((short_s + long_s + _REJOIN_S) / step_s))
        alone = replace(subject, extra=the_same_on(2)).undisturbed(1)

        def start(node: int) -> Launched:
            host = hosts[node]
            before = ["ip", "netns", "exec", host.name, "bash", str(_RELAUNCH), str(subject.scratch / "cut")]
            options = node_options(node, f"{hosts[0].address}:{RENDEZVOUS_PORT}", host.address)
            environment = {"GLOO_SOCKET_IFNAME": host.interface}
            return started.enter_context(subject.start("cut", *options, before=before, environment=environment))

        nodes = [start(0), start(1)]
        run = nodes[0]
        run.wait_for("two nodes", lambda: _nodes(run) == 2, subject.timeout_s, _LOOK_S)
        found = {}
        for name, seconds in (("short", short_s), ("long", long_s)):
            found[name] = _cut(run, hosts[1], seconds)
            done()
        codes = [node.wait(subject.timeout_s + subject.steps) for node in nodes]
        distance = Ended(run).distance(alone)
    as_expected = [(cut["nodes"], cut["attempts"]) for cut in found.values()] == [(2, 0), (1, 2)]
    return {
        **found,
        "rank_wait_s": _WAIT_S,
        "steps": subject.steps,
        "distance": distance,
        "survived": as_expected and codes == [0, 0] and distance < ROUNDING,
    }


def _cut(run: Launched, host: Host, seconds: float) -> dict[str, Any]:
    """Cut a host's link for a time, and return what came of it, when both nodes train again."""
    before, began = len(attempts(run.said())), time.monotonic()
    since, step, gap_s, fewest = began, run.step(), 0.0, 2

    def through(what: str, happened: Callable[[], bool], timeout_s: float) -> None:
        def look() -> bool:
            nonlocal since, step, gap_s, fewest
            now, current = time.monotonic(), run.step()
            gap_s = max(gap_s, now - since)
            if current != step:
                since, step = now, current
                fewest = min(fewest, _nodes(run) or fewest)
            return happened()

        run.wait_for(what, look, timeout_s, _LOOK_S)

    _ip("-n", host.name, "link", "set", host.interface, "down")
    through("the cut", lambda: time.monotonic() > began + seconds, seconds + 1)
    reached = run.step()
    _ip("-n", host.name, "link", "set", host.interface, "up")
    goes_on = reached + EVERY + 1
    through("two nodes", lambda: run.step() >= goes_on and _nodes(run) == 2, _LONGEST_S)
    found = {
        "cut_s": seconds,
        "gap_s": round(gap_s, 1),
        "nodes": fewest,
        "attempts": len(attempts(run.said())) - before,
    }
    return {**found, "together_after_s": round(time.monotonic() - began, 1)}


def _nodes(run: Launched) -> int:
    """Return how many nodes, of one rank each, wrote the newest checkpoint."""
    newest = max((run.folder / "checkpoints").glob("step-*"), default=run.folder)
    try:
        return read_marker(newest)["world_size"]
    except CheckpointError:  # it has just been removed
        return 0


@contextlib.contextmanager
def two_hosts() -> Generator[list[Host]]:
    """Make two network namespaces, joined by a virtual cable, for the time of the context."""
    hosts = [Host(f"arc{os.getpid()}-{node}", f"10.77.0.{node + 1}", f"arc{node}") for node in range(2)]
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        first, second = hosts
        _ip(
            "-n",
            first.name,
            *("link", "add", first.interface, "type", "veth"),
            *("peer", "name", second.interface, "netns", second.name),
        )
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.interface)
            _ip("-n", host.name, "link", "set", host.interface, "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
