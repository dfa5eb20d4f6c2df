"""Nodes that join a run and die: it goes on with those that are there, and ends with the weights of one process."""

import contextlib
import math
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arcdist.bench.faults_run import BATCH, EVERY, Ended, Subject, attempts
from arcdist.bench.launched import Launched

# Of nodes of one rank each. Node 0 holds the rendezvous, which does not outlive it.
CHANGES = (("joins", 1), ("joins", 2), ("dies", 1), ("joins", 1), ("dies", 2))
ROUNDING = 1e-3  # relative
RENDEZVOUS_PORT = 29400  # where each host has its own network
_STEPS_EACH = EVERY + 2  # so that what was trained on so many nodes stays


def nodes_come_and_go(
    changes: Sequence[tuple[str, int]] = CHANGES,
    steps_to_join: int = 60,
    launch: type[Launched] = Launched,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Let nodes join a run and die, all at one global batch, and return what came of it.

    Args:
        changes: what happens to which node, one after another.
        steps_to_join: that are done while a node starts, at most.
        launch: how a node's torchrun is started; all are on this machine.
        done: is called after each change.

    Returns:
        ``nodes``, how many there were after each change; ``steps_redone``, what each cost; ``distance`` of the weights
        from those of an undisturbed process, relative; ``survived``, whether all that is as it must be.

    Errors: LaunchedRunError where the run does not go on.
    """
    joins = sum(change == "joins" for change, _ in changes)
    steps = _STEPS_EACH * (len(changes) + 2) + steps_to_join * joins
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as started:
        subject = Subject(Path(scratch), steps, launch, extra=the_same_on(1 + max(node for _, node in changes)))
        alone, endpoint = subject.undisturbed(1), f"127.0.0.1:{_free_port()}"

        def start(node: int) -> Launched:
            return started.enter_context(subject.start("changing", *node_options(node, endpoint)))

        nodes, expected, seen, redone = {0: start(0)}, [], [], []
        run = nodes[0]
        for change, node in changes:
            run.wait_for("the run", lambda: attempts(run.said()), subject.timeout_s)
            begun = attempts(run.said())
            run.wait_for("steps", lambda first=begun[-1]: run.step() >= first + _STEPS_EACH, subject.timeout_s)
            if change == "joins":
                nodes[node] = start(node)
            else:
                nodes.pop(node).kill()
            reached = run.follow(lambda begun=begun: len(attempts(run.said())) > len(begun), subject.timeout_s)
            redone.append(reached - attempts(run.said())[-1])
            expected.append(len(nodes))
            seen.append(sum(len(one.ranks()) for one in nodes.values()))
            done()
        codes = [one.wait(subject.timeout_s + steps) for one in nodes.values()]
        distance = Ended(run).distance(alone)
    return {
        "changes": [f"node {node} {change}" for change, node in changes],
        "nodes": seen,
        "steps": steps,
        "checkpoint_every": EVERY,
        "steps_redone": redone,
        "steps_redone_max": max(redone),
        "distance": distance,
        "survived": seen == expected and not any(codes) and max(redone) <= EVERY + 1 and distance < ROUNDING,
    }


def the_same_on(nodes: int) -> tuple[str, ...]:
    """Return what makes a run the same to rounding on up to so many nodes of one rank each.

    Micro-batches of the same rows; and no mined margin and small steps, since rounding grows fast by both.
    """
    return f"train.micro_batch_size={BATCH // math.lcm(*range(1, nodes + 1))}", "margin=arcface", "optim.lr=5e-5"


def rendezvous_dies(launch: type[Launched] = Launched, done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Kill the node that holds the rendezvous of a run of two, start both again, and return what came of it.

    Args:
        launch: how a node's torchrun is started; both are on this machine.
        done: is called when the other node has ended.

    Returns:
        ``code``, what the other node's torchrun ended with, and ``ended_after_s``; ``steps_redone``; ``distance`` of
        the weights from those of an undisturbed process, relative; ``survived``, whether all that is as it must be.

    Errors: LaunchedRunError where the run does not go on.
    """
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as started:
        subject = Subject(Path(scratch), 4 * EVERY, launch, extra=the_same_on(2))
        alone = subject.undisturbed(1)

        def start() -> list[Launched]:
            endpoint = f"127.0.0.1:{_free_port()}"
            options = [node_options(node, endpoint, nodes="2") for node in range(2)]
            return [started.enter_context(subject.start("headless", *each)) for each in options]

        first, other = start()
        first.wait_for("steps", lambda: first.step() >= EVERY + _STEPS_EACH, subject.timeout_s)
        first.kill()
        killed_at, began = first.step(), time.monotonic()
        code = other.wait(subject.timeout_s)
        ended_after_s = time.monotonic() - began
        done()
        again = start()
        codes = [node.wait(subject.timeout_s + subject.steps) for node in again]
        redone = killed_at - attempts(again[0].said())[-1]
        distance = Ended(again[0]).distance(alone)
    return {
        "code": code,
        "ended_after_s": round(ended_after_s, 1),
        "steps_redone": redone,
        "steps_redone_max": redone,
        "distance": distance,
        "survived": code != 0 and codes == [0, 0] and redone <= EVERY + 1 and distance < ROUNDING,
    }


def node_options(node: int, endpoint: str, address: str = "127.0.0.1", nodes: str = "1:3") -> list[str]:
    """Return torchrun's options of one of so many nodes, of one rank; its death is noticed within seconds."""
    rendezvous = f"is_host={int(node == 0)},last_call_timeout=2,keep_alive_interval=1"
    return [
        *(f"--nnodes={nodes}", "--nproc-per-node=1", "--max-restarts=10", f"--local-addr={address}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=faults", f"--rdzv-conf={rendezvous}"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
