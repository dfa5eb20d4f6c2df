"""What carries data between the ranks: whether its sums are right, how long it takes, and the names of its doors."""

import fcntl
import socket
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from arcdist.runtime import collectives

_SIOCGIFADDR = 0x8915  # netdevice(7)
_LATENCY_ROUNDS, _BANDWIDTH_ROUNDS = 51, 7


@dataclass(frozen=True)
class LinkTime:
    """How long a collective takes.

    Args:
        collective: its name.
        size_bytes: of what every rank has at its end.
        median_s: of the rank where it takes longest.
        bus: bytes that travel over a rank's link, for each byte of the size.
    """

    collective: str
    size_bytes: int
    median_s: float
    bus: float

    @property
    def gb_s(self) -> float:
        """Bandwidth of a rank's link in GB/s, what nccl-tests name bus bandwidth."""
        return self.bus * self.size_bytes / self.median_s / 1e9


def wrong_collectives(device: torch.device) -> list[str]:
    """Return the names of the collectives of a training step that give other numbers than they must."""
    rank, size = collectives.rank(), collectives.world_size()
    mine = torch.full([3, 5], float(rank + 1), device=device, requires_grad=True)
    (gathered,) = collectives.gather_rows(mine)
    gathered.sum().backward()
    everyones = torch.arange(1.0, size + 1, device=device).repeat_interleave(3)[:, None].expand(-1, 5)
    assert mine.grad is not None
    right = {
        "all-reduce": bool((collectives.all_reduce_sum(mine) == size * (size + 1) / 2).all()),
        "all-gather": torch.equal(gathered.detach(), everyones),
        "reduce-scatter": bool((mine.grad == size).all()),
        "broadcast": collectives.broadcast_object(rank) == 0,
    }
    return [name for name, as_it_must in right.items() if not as_it_must]


def time_link(device: torch.device, size_bytes: int) -> list[LinkTime]:
    """Return how long an all-reduce and an all-gather take, of as little as can be and of ``size_bytes``.

    All ranks call it; there are at least two. Memory: twice the size.
    """
    ranks = collectives.world_size()
    share = (ranks - 1) / ranks
    times = []
    for size, rounds in ((4 * ranks, _LATENCY_ROUNDS), (size_bytes, _BANDWIDTH_ROUNDS)):
        part = torch.zeros(max(1, size // 4 // ranks), device=device)
        whole = torch.zeros(part.numel() * ranks, device=device)
        length = whole.numel() * 4
        for name, bus, call in (
            ("all-reduce", 2 * share, lambda whole=whole: dist.all_reduce(whole)),
            ("all-gather", share, lambda part=part: collectives.gather_rows(part)),
        ):
            times.append(LinkTime(name, length, _median_s(call, rounds, device), bus))
    return times


def _median_s(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Return the median time of a collective on the rank where it takes longest."""
    taken = []
    for _ in range(rounds + 2):
        collectives.barrier()
        began = time.monotonic()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.monotonic() - began)
    median = torch.tensor([statistics.median(taken[2:])], dtype=torch.float32, device=device)  # the first two warm up
    return float(collectives.all_reduce_max(median))


def addresses() -> dict[str, str]:
    """Return the IPv4 address of each network interface that has one, but for the loopback."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return {name: address for name, address in found.items() if not address.startswith("127.")}


def address_of_own_name() -> str:
    """Return the address that this machine's name stands for, which gloo listens at; empty where it has none."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
