"""Ranks of a run under torchrun that are killed at drawn moments, and what the run has lost by it at its end."""

import contextlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcdist.bench.faults_run import EPOCH, EVALUATE_EVERY, EVERY, ONE_NODE, Ended, Subject, all_gone, attempts
from arcdist.bench.launched import Launched, LaunchedRunError
from arcdist.checkpoint.folder import place_of

# Within a step, while a checkpoint is written, in evaluation, where an epoch begins, while the ranks start again.
_DRAWN = ("step", "save", "evaluation", "epoch", "start")
_LAST = "finish"  # after the last checkpoint
_STEPS_EACH = EVERY + 2  # so that most kills find a checkpoint that is newer than the last one's
_FINISH_S = 0.5
_LOOK_S = 0.05


@dataclass(frozen=True)
class Kill:
    """One rank's end: in which moment, after which step, at which share of the moment."""

    moment: str
    step: int
    share: float
    rank: int


def plan(kills: int, ranks: int, seed: int) -> tuple[list[Kill], int]:
    """Return the kills in their order, and the steps of a run that has room for them."""
    draws = random.Random(f"{seed}/{ranks}")
    steps = _STEPS_EACH * kills + EVERY
    planned = []
    for number in range(kills):
        moment = _LAST if number == kills - 1 else draws.choice(_DRAWN[: None if number else -1])
        drawn = 1 + _STEPS_EACH * number + draws.randrange(_STEPS_EACH)
        unit = {"save": EVERY, "evaluation": EVALUATE_EVERY, "epoch": EPOCH, _LAST: steps}.get(moment, 1)
        step = min(steps, round(-(-drawn // unit) * unit))
        planned.append(Kill(moment, step, draws.random(), draws.randrange(ranks)))
    return planned, steps


def kills_in_a_run(
    kills: int, ranks: int, seed: int, launch: type[Launched] = Launched, done: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Kill ranks of a run again and again, which torchrun starts anew, and return what came of it.

    Args:
        kills: SIGKILLs.
        ranks: of the run.
        seed: of the moments and of whose they are.
        launch: how runs are started.
        done: is called after each kill.

    Returns:
        ``bit_identical``, whether every tensor of the last checkpoint is that of a run without kills;
        ``steps_redone_max`` and ``steps_redone``, what the kills cost; ``moments``, how often each was met;
        ``survived``, whether the bits are right and no kill cost more than a checkpoint's interval and one step.

    Errors: LaunchedRunError where the run does not go on.
    """
    planned, steps = plan(kills, ranks, seed)
    with tempfile.TemporaryDirectory() as scratch:
        subject = Subject(Path(scratch), steps, launch)
        undisturbed = subject.undisturbed(ranks)
        lasts = {"save": undisturbed.save_s, "start": undisturbed.start_s, _LAST: _FINISH_S}
        begun, reached = 0, {}  # attempts; the step that each came to
        with subject.start("killed", *ONE_NODE, f"--nproc-per-node={ranks}", f"--max-restarts={kills}") as run:
            killed: set[int] = set()
            for kill in planned:
                _await(run, kill, begun, killed, subject.timeout_s)
                time.sleep(kill.share * lasts.get(kill.moment, undisturbed.step_s))
                pids = run.ranks()
                killed |= set(pids.values())
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[kill.rank], signal.SIGKILL)
                if not all_gone(pids.values(), subject.timeout_s):
                    raise LaunchedRunError(f"{run.folder}: ranks are still there after another was killed")
                begun = len(attempts(run.said()))
                reached[begun] = run.step()
                done()
            run.wait(subject.timeout_s + steps)
            ended = Ended(run)
            firsts = attempts(run.said())
    redone = [reached[number] - first for number, first in enumerate(firsts) if number]
    same = ended.equals(undisturbed)
    return {
        "ranks": ranks,
        "kills": kills,
        "moments": Counter(kill.moment for kill in planned),
        "steps": steps,
        "checkpoint_every": EVERY,
        "attempts": len(firsts),
        "steps_redone": redone,
        "steps_redone_max": max(redone),
        "bit_identical": same,
        "survived": same and max(redone) <= EVERY + 1,
    }


def _await(run: Launched, kill: Kill, begun: int, killed: set[int], timeout_s: float) -> None:
    """Wait for the moment of a kill, in an attempt after the first ``begun``, by ranks that are not ``killed``."""
    if kill.moment == "start":
        run.wait_for("new ranks", lambda: len(set(run.ranks().values()) - killed) > kill.rank, timeout_s, _LOOK_S)
        return
    run.wait_for("another attempt", lambda: len(attempts(run.said())) > begun, timeout_s, _LOOK_S)
    place = place_of(run.folder / "checkpoints", kill.step)
    if kill.moment == "save":
        run.wait_for("a save", lambda: any(place.parent.glob(f".writing-{place.name}-*")) or place.exists(), timeout_s)
    elif kill.moment == _LAST:
        run.wait_for("the last save", place.exists, timeout_s)
    else:
        run.wait_for(f"step {kill.step}", lambda: run.step() >= kill.step, timeout_s)
