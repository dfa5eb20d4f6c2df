"""Runs of several nodes: network namespaces of this machine, joined by virtual cables to a switch."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import ForkedLaunch

from arcdist.bench.faults_nodes import ROUNDING, the_same_on
from arcdist.bench.faults_run import Ended, Subject

_NODES = 3
_can_make_nodes = os.geteuid() == 0 and shutil.which("ip") is not None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _address(node: int) -> str:
    return f"10.77.1.{node + 1}"


@pytest.fixture
def networks() -> Iterator[list[str]]:
    """Return the names of three network namespaces, each with an interface ``arc0`` that reaches the others."""
    switch, *nodes = names = [f"arc{os.getpid()}-{name}" for name in ("switch", *range(_NODES))]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for number, name in enumerate(nodes):
            ends = ("type", "veth", "peer", "name", "arc0", "netns", name)
            _ip("-n", switch, "link", "add", f"port{number}", *ends)
            _ip("-n", switch, "link", "set", f"port{number}", "master", "switch", "up")
            _ip("-n", name, "addr", "add", f"{_address(number)}/24", "dev", "arc0")
            _ip("-n", name, "link", "set", "arc0", "up")
        yield nodes
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.torchrun
@pytest.mark.skipif(not _can_make_nodes, reason="needs root and iproute2, to make network namespaces")
def test_two_and_three_nodes_end_with_the_weights_of_one_process(tmp_path: Path, networks: list[str]) -> None:
    subject = Subject(tmp_path, 12, ForkedLaunch, extra=the_same_on(_NODES))
    alone = subject.undisturbed(1)
    for size in (2, 3):
        with contextlib.ExitStack() as started:
            nodes = [
                started.enter_context(
                    subject.start(
                        f"on-{size}",
                        *(f"--nnodes={size}", "--nproc-per-node=1", f"--local-addr={_address(node)}"),
                        *("--rdzv-backend=c10d", f"--rdzv-endpoint={_address(0)}:29400", f"--rdzv-id=on-{size}"),
                        f"--rdzv-conf=is_host={int(node == 0)}",
                        environment={"FORKED_NETWORK": network, "GLOO_SOCKET_IFNAME": "arc0"},
                    )
                )
                for node, network in enumerate(networks[:size])
            ]
            assert [node.wait(subject.timeout_s) for node in nodes] == [0] * size
            ended = Ended(nodes[0])
        assert (tmp_path / f"on-{size}/summary.json").read_text().count(f'"world_size": {size}') == 1
        assert ended.distance(alone) < ROUNDING
