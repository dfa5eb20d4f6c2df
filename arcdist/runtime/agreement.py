"""Whether what all ranks should hold alike is alike on all of them.

A flipped bit, or a reduction that one rank left out, makes ranks drift apart; every loss still looks right. So it does
where a node was started with another configuration, or has an older copy of the code or the data.
"""

import json
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from arcdist.errors import ArcdistError
from arcdist.runtime import collectives

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SHOWN = 3
_SHOWN_AT_START = 12  # a line each


class DriftError(ArcdistError):
    """Ranks hold other values than each other."""

    on_every_rank = True


def check_agreement(tensors: Mapping[str, Tensor | None], step: int) -> None:
    """Raise DriftError, on every rank, where a tensor's bits or the step are not the same on all ranks that hold it.

    What is compared is the sum of each tensor's bits as integers, which a change of any one number changes.

    Args:
        tensors: by name, the same names on every rank, all on one device; None where this rank does not hold it.
        step: optimizer steps done.

    Communication: one all-reduce of two numbers a tensor; where it fails, all numbers of all ranks.
    """
    if collectives.world_size() == 1:
        return
    sums = {name: _bits(tensor) for name, tensor in tensors.items() if tensor is not None}
    mine = torch.stack([*sums.values()])
    # ~ turns the order round, and overflows nowhere; what is not held is below all in both
    both = mine.new_full((2, 1 + len(tensors)), torch.iinfo(torch.int64).min)
    both[:, 0] = mine.new_tensor([step, ~step])
    both[:, [1 + place for place, name in enumerate(tensors) if name in sums]] = torch.stack([mine, ~mine])
    extremes = collectives.all_reduce_max(both)
    if torch.equal(extremes[0], ~extremes[1]):
        return
    everyones = collectives.gather_objects([step, *(int(sums[name]) if name in sums else None for name in tensors)])
    names = ["the number of steps", *tensors]
    told = []
    for name, values in zip(names, zip(*everyones)):
        held = {rank: value for rank, value in enumerate(values) if value is not None}
        usual, count = Counter(held.values()).most_common(1)[0]
        if count < len(held):
            others = [str(rank) for rank, value in held.items() if count == 1 or value != usual]
            who = f"no two of ranks {', '.join(others)} agree" if count == 1 else f"of rank {', '.join(others)}"
            told.append(f"{name} ({who})")
    raise DriftError(
        f"step {step}: the ranks have drifted apart in {len(told)} of {len(names)} things: {'; '.join(told[:_SHOWN])}"
        + ("; …" if len(told) > _SHOWN else "")
        + "; start again, and the run goes on from its last checkpoint, which is from before; a rank that is named "
        "again has a broken device"
    )


def _bits(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's numbers, read as integers of their size."""
    return tensor.detach().view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)


class DifferentStartError(ArcdistError):
    """Ranks were started with other settings, code or data than each other."""

    on_every_rank = True


def check_started_alike(told: Mapping[str, Any]) -> None:
    """Raise DifferentStartError, on every rank, where ranks tell different things of what they were started with.

    Args:
        told: JSON-able values by name.

    Communication: one gather of it.
    """
    everyones = collectives.gather_objects((dict(told), socket.gethostname()))
    lines = []
    for name in sorted({name for one, _ in everyones for name in one}):
        of_value: dict[str, list[str]] = {}
        for rank, (one, host) in enumerate(everyones):
            of_value.setdefault(json.dumps(one.get(name)), []).append(f"rank {rank} on {host}")
        if len(of_value) > 1:
            who = (
                f"{value} ({holders[0]}{f' and {len(holders) - 1} more' if holders[1:] else ''})"
                for value, holders in of_value.items()
            )
            lines.append(f"\n  {name}: {', '.join(who)}")
    if lines:
        more = f"\n  and {len(lines) - _SHOWN_AT_START} more" if len(lines) > _SHOWN_AT_START else ""
        raise DifferentStartError(
            "the ranks were not started alike; give every node the same command, code and data. What differs:"
            + "".join(lines[:_SHOWN_AT_START])
            + more
        )
