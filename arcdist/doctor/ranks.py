"""What lies between ranks: whether they find each other, agree, see one folder, compute right sums, and how fast."""

import os
import secrets
import socket
from collections import Counter
from pathlib import Path

from arcdist.doctor.finding import Finding
from arcdist.doctor.software import versions
from arcdist.runtime import collectives
from arcdist.runtime.link import LinkTime, address_of_own_name, addresses, time_link, wrong_collectives
from arcdist.runtime.world import World

# GB/s of a rank's link. Less than PCIe gives between GPUs; less than 25 Gb/s between nodes; less than 1 Gb/s.
_WANTED_OF_GPUS, _WANTED_OF_NODES, _WANTED_OF_CPUS = 10.0, 3.0, 0.1
_SLOW_S = 5e-3  # a step of the head waits for about six small messages
_R50_BYTES = 174e6  # what the gradients of r50 take in fp32


def look_at_ranks(world: World, folder: str, link_mib: int) -> list[Finding]:
    """Return what is found between the ranks, on rank 0; all of them call it.

    Args:
        world: this process's.
        folder: of the runs.
        link_mib: how much is sent to measure the bandwidth.
    """
    wrong = wrong_collectives(world.device)
    everyones_wrong = sorted({name for names in collectives.gather_objects(wrong) for name in names})
    nodes = len(set(collectives.gather_objects(_node())))
    backend = "NCCL" if world.device.type == "cuda" else "gloo"
    found = f"{world.size} on {nodes} node{'s' * (nodes > 1)}, joined by {backend}"
    if everyones_wrong:
        told = f"{', '.join(everyones_wrong)} give wrong numbers"
        return [Finding("ranks", f"{found}; {told}", "fault", "a device or its driver is broken: leave out its node")]
    findings = [Finding("ranks", found), _agreement(), _folder(Path(folder))]
    return findings + _link(time_link(world.device, link_mib * 2**20), world.device.type == "cuda", nodes)


def cannot_join(reason: str) -> Finding:
    """Return the finding of ranks that did not find each other, with what this node knows of its network."""
    own, doors = address_of_own_name(), addresses()
    named = ", ".join(f"{name} ({address})" for name, address in doors.items()) or "none but the loopback"
    found = f"{reason}; interfaces here: {named}; {socket.gethostname()} stands for {own or 'no address'}"
    name = next(iter(doors), "NAME")
    advice = (
        "are all ranks started? Let every node use the interface that reaches the others: "
        f"GLOO_SOCKET_IFNAME={name} NCCL_SOCKET_IFNAME={name}"
    )
    return Finding("ranks", found, "fault", advice)


def _node() -> str:
    """Return what tells this rank's node from others: torchrun's number of it, or its name."""
    return os.environ.get("GROUP_RANK", socket.gethostname())


def _agreement() -> Finding:
    everyones = collectives.gather_objects(versions())
    apart = []
    for name in everyones[0]:
        held = [one.get(name, "") for one in everyones]
        usual = Counter(held).most_common(1)[0][0]
        apart += [
            f"rank {rank} has {name} {has or '(none)'}, others {usual}" for rank, has in enumerate(held) if has != usual
        ]
    if apart:
        return Finding("versions", "; ".join(apart), "fault", "install the same versions on every node")
    return Finding("versions", "the same on every rank")


def _folder(folder: Path) -> Finding:
    """Return whether a file that rank 0 writes is seen by all, as checkpoints must be."""
    folder = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    folder, name = collectives.broadcast_object((folder, f".seen-by-all-{secrets.token_hex(4)}"))

    def write() -> bool:
        try:
            (folder / name).touch()
        except OSError:
            return False
        return True

    if not collectives.from_rank_0(write):
        return Finding("one folder", f"{folder}: rank 0 cannot write there", "fault", "choose another folder=")
    try:
        blind = [rank for rank, sees in enumerate(collectives.gather_objects((folder / name).exists())) if not sees]
    finally:
        if collectives.rank() == 0:
            (folder / name).unlink(missing_ok=True)
    if blind:
        advice = "a run's folder= must be one for all nodes, on a network disk, or checkpoints are not whole"
        return Finding("one folder", f"{folder}: of rank 0 is not that of ranks {blind}", "fault", advice)
    return Finding("one folder", f"{folder}: seen by every rank")


def _link(times: list[LinkTime], on_gpus: bool, nodes: int) -> list[Finding]:
    latency, bandwidth = times[:2], times[2:]
    waits = ", ".join(f"{one.collective} {1e6 * one.median_s:,.0f} µs" for one in latency)
    carries = ", ".join(f"{one.collective} {one.gb_s:.2f} GB/s" for one in bandwidth)
    figures = {f"{one.collective.replace('-', '_')}_us": 1e6 * one.median_s for one in latency}
    figures |= {f"{one.collective.replace('-', '_')}_gb_s": one.gb_s for one in bandwidth}
    r50_ms = 1e3 * bandwidth[0].bus * _R50_BYTES / (bandwidth[0].gb_s * 1e9)
    size_mib = bandwidth[0].size_bytes / 2**20
    found = f"{waits} of a few bytes; {carries} of {size_mib:.0f} MiB; r50's gradients {r50_ms:,.0f} ms"
    wanted = (_WANTED_OF_NODES if nodes > 1 else _WANTED_OF_GPUS) if on_gpus else _WANTED_OF_CPUS
    if bandwidth[0].gb_s < wanted:
        advice = f"less than {wanted:g} GB/s: {_way_to_speed(on_gpus, nodes)}"
        return [Finding("link", found, "advice", advice, figures)]
    if max(one.median_s for one in latency) > _SLOW_S:
        return [
            Finding(
                "link", found, "advice", "every step waits for it some times: are cores or the network busy?", figures
            )
        ]
    return [Finding("link", found, figures=figures)]


def _way_to_speed(on_gpus: bool, nodes: int) -> str:
    if nodes > 1:
        return "NCCL_DEBUG=INFO (or GLOO_SOCKET_IFNAME) says which network is used; choose the fastest"
    if on_gpus:
        return "nvidia-smi topo -m shows how the GPUs are joined; is NCCL_P2P_DISABLE set, or IOMMU on?"
    return "are the cores busy?"
