"""Nodes that join a run and die: it goes on with those that are there, and ends with the weights of one process."""

import contextlib
import math
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arcdist.bench.faults_run import BATCH, EVERY, Ended, Subject, attempts
from arcdist.bench.launched import Launched

# Of nodes of one rank each. Node 0 holds the rendezvous, which does not outlive it.
CHANGES = (("joins", 1), ("joins", 2), ("dies", 1), ("joins", 1), ("dies", 2))
ROUNDING = 1e-3  # relative
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


def node_options(node: int, endpoint: str, address: str = "127.0.0.1") -> list[str]:
    """Return torchrun's options of a node that may come and go, of one rank; its death is noticed within seconds."""
    rendezvous = f"is_host={int(node == 0)},last_call_timeout=2,keep_alive_interval=1"
    return [
        *("--nnodes=1:3", "--nproc-per-node=1", "--max-restarts=10", f"--local-addr={address}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=faults", f"--rdzv-conf={rendezvous}"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
