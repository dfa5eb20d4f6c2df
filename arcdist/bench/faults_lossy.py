"""Two nodes whose link is slow and loses packets: it takes longer, and gives the same bits."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcdist.bench import faults_link
from arcdist.bench.faults_link import Host, two_hosts
from arcdist.bench.faults_nodes import RENDEZVOUS_PORT, node_options
from arcdist.bench.faults_run import EVERY, Ended, Subject
from arcdist.bench.launched import Launched

_STEPS = 2 * EVERY
# A queue that a step's gradients overflow: the kernel drops what finds no room, and TCP sends it again.
_SLOW = ("tbf", "rate", "20mbit", "burst", "16kb", "limit", "24kb")


def missing() -> str:
    """Return what this machine lacks for it, empty where it lacks nothing."""
    return faults_link.missing() or ("" if shutil.which("tc") else "needs tc (iproute2), to make a link slow")


def into(host: Host) -> dict[str, Any]:
    """Return what starts a node on a host, as arguments of ``Subject.start``."""
    return {
        "before": ["ip", "netns", "exec", host.name],
        "environment": {"GLOO_SOCKET_IFNAME": host.interface},
    }


def slow_link(
    launch: type[Launched] = Launched,
    into: Callable[[Host], dict[str, Any]] = into,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Do a run on two nodes, and again over a link of 20 Mbit/s that drops what it has no room for.

    Args:
        launch: how a node's torchrun is started.
        into: what starts it on a host.
        done: is called when the second run is done.

    Returns:
        ``packets_dropped`` by both ends; ``run_s`` and ``clean_run_s``, from the first step on; ``bit_identical``,
        whether every tensor of the last checkpoints is the same; ``survived``, whether the bits are, packets were
        lost, and no rank was started anew.

    Errors: LaunchedRunError where a run does not go on.
    """
    with tempfile.TemporaryDirectory() as scratch, two_hosts() as hosts:
        subject = Subject(Path(scratch), _STEPS, launch, extra=("runtime.timeout_s=100",))
        clean, _ = _run(subject, "clean", hosts, into)
        for host in hosts:
            _tc(host, "add", "dev", host.interface, "root", *_SLOW)
        lossy, codes = _run(subject, "lossy", hosts, into)
        dropped = sum(_dropped(host) for host in hosts)
        done()
        same = lossy.equals(clean)
    return {
        "link": " ".join(_SLOW),
        "steps": _STEPS,
        "packets_dropped": dropped,
        "clean_run_s": round(clean.train_s, 2),
        "run_s": round(lossy.train_s, 2),
        "bit_identical": same,
        "survived": same and dropped > 0 and codes == [0, 0],
    }


def _run(
    subject: Subject, name: str, hosts: list[Host], into: Callable[[Host], dict[str, Any]]
) -> tuple[Ended, list[int]]:
    """Do a run on both hosts; return how it ended and the launchers' exit codes."""
    endpoint = f"{hosts[0].address}:{RENDEZVOUS_PORT}"
    with contextlib.ExitStack() as started:
        nodes = [
            started.enter_context(
                subject.start(name, *node_options(node, endpoint, host.address, nodes="2"), **into(host))
            )
            for node, host in enumerate(hosts)
        ]
        codes = [node.wait(subject.timeout_s + subject.steps) for node in nodes]
        return Ended(nodes[0]), codes


def _tc(host: Host, *what: str) -> None:
    subprocess.run(["tc", "-n", host.name, "qdisc", *what], check=True, capture_output=True, text=True)


def _dropped(host: Host) -> int:
    """Return how many packets a host's end of the link has dropped."""
    command = ["tc", "-n", host.name, "-s", "qdisc", "show", "dev", host.interface]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"dropped (\d+)", said)
    return int(found[1]) if found else 0
