"""The time and the communication of a step, part by part."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from arcdist.bench.plan_machine import Machine
from arcdist.bench.plan_network import BackboneCost
from arcdist.bench.plan_sizes import Sizes

_WIDE, _LABEL = 4, 8  # bytes
_BACKWARD_SHARE = 2 / 3
_PASSES = {"fp32": 4, "tf32": 4, "bf16": 5}  # over a CPU's logits, as many exponentials take the time of
_KERNEL_PRODUCTS = 5  # of B·S·D that the Triton kernels take
_NETWORK_LATENCY_S, _DOUBLING_S = 25e-6, 5e-6  # of a collective across nodes, and for each doubling of them
# Stochastic rounding of a number to bfloat16: a hash of 8 bytes for four of them, and passes over integers of 4 bytes;
# half of it stays in a CPU's cache.
_ROUNDING_BYTES = {"cpu": 36, "cuda": 72}
_HASH_BYTES = 64  # what a draw costs for each class, as memory traffic


@dataclass(frozen=True)
class Collective:
    """One or several alike of a step.

    Attributes:
        what: it carries.
        kind: all-gather, reduce-scatter, all-reduce.
        bytes: that a rank gives or gets, all of them together.
        ranks: that take part.
        over: the ranks' distance in the run: 1 where they are neighbors.
        calls: how many.
        hidden: whether the backward pass hides it.
    """

    what: str
    kind: str
    bytes: int
    ranks: int
    over: int = 1
    calls: int = 1
    hidden: bool = False


@dataclass(frozen=True)
class Links:
    """What joins the ranks beyond a node.

    Attributes:
        ranks_per_node: that the machine's own link joins.
        network_per_s: bytes of a rank to other nodes, one way.
    """

    ranks_per_node: int
    network_per_s: float


def collectives(sizes: Sizes, cost: BackboneCost) -> list[Collective]:
    """Return the collectives of a step, counted in bytes as torch is given them."""
    return [one for one in _collectives(sizes, cost) if one.ranks > 1]


def _collectives(sizes: Sizes, cost: BackboneCost) -> Iterator[Collective]:
    rounds, batch, dim = sizes.rounds, sizes.batch, sizes.embedding_dim
    every = sizes.rows * sizes.ranks  # rows of a round
    shards, groups = sizes.shards, sizes.groups
    yield Collective(
        "embeddings and labels", "all-gather", rounds * batch * (dim * _WIDE + _LABEL), shards, calls=rounds
    )
    yield Collective("log-sum-exps and cosines", "all-reduce", rounds * 3 * batch * _WIDE, shards, calls=2 * rounds)
    yield Collective("embeddings' gradient", "reduce-scatter", rounds * batch * dim * _WIDE, shards, calls=rounds)
    if groups > 1:
        scalars = rounds * 3 * every * _WIDE
        yield Collective("log-sum-exps of groups", "all-gather", scalars, groups, shards, rounds)
        classes = sizes.drawn if sizes.fused else sizes.shard * rounds
        calls = -(-classes // max(sizes.block, 1)) if sizes.fused else rounds
        yield Collective("centers' gradient", "all-reduce", classes * dim * _WIDE, groups, shards, calls)
    if sizes.sample_rate < 1 and (rounds > 1 or groups > 1):
        yield Collective("labels of a step", "all-gather", rounds * every * _LABEL, sizes.ranks)
    yield Collective("running statistics", "all-reduce", (2 * cost.normalized_channels + 3) * _WIDE, sizes.ranks)
    yield from _of_backbone(sizes, cost)


def _of_backbone(sizes: Sizes, cost: BackboneCost) -> Iterator[Collective]:
    """Yield what a step sends of the backbone's weights and gradients."""
    shards, rounds = sizes.weight_shards, sizes.rounds
    if shards == 1:
        sent = cost.parameters * sizes.gradient_bytes
        yield Collective("backbone's gradients", "all-reduce", sent, sizes.ranks, hidden=True)
        return
    times = [rounds * unit.count * (2 if unit.is_block and sizes.reshard else 1) for unit in cost.units]
    weights = sum(count * unit.weights(shards) for count, unit in zip(times, cost.units))
    yield Collective("backbone's weights", "all-gather", weights * _WIDE, shards, calls=sum(times), hidden=True)
    gradients = rounds * sizes.gradient_bytes * sum(unit.count * unit.gradients(shards) for unit in cost.units)
    calls = rounds * sum(unit.count for unit in cost.units if unit.trained)
    yield Collective("backbone's gradients", "reduce-scatter", gradients, shards, calls=calls, hidden=True)
    among = sizes.ranks // shards
    yield Collective(
        "gradients of groups", "all-reduce", gradients // shards, among, over=shards, calls=calls, hidden=True
    )


def collective_s(one: Collective, machine: Machine, links: Links) -> float:
    """Return the seconds of a collective in rings, by the slowest link on its way."""
    nodes = -(-one.ranks * one.over // links.ranks_per_node)
    within = nodes == 1
    rate = machine.node_per_s if within else links.network_per_s
    latency = machine.latency_s if within else _NETWORK_LATENCY_S + _DOUBLING_S * math.log2(nodes)
    times = 2.0 if one.kind == "all-reduce" else machine.gathering if within else 1.0
    return times * (one.ranks - 1) / one.ranks * one.bytes / rate + one.calls * latency


def backbone_s(sizes: Sizes, cost: BackboneCost, machine: Machine, name: str) -> float:
    """Return the seconds of a step's forward and backward passes: as measured, or by operations and traffic."""
    measured = machine.backbones.get(f"{name}/{sizes.precision}")
    if measured:
        fixed, each = measured
        return sizes.rounds * cost.recomputed * (fixed + sizes.rows * each)
    of_image = cost.flops / machine.convolutions[sizes.precision] + cost.moved_bytes / machine.memory_per_s
    return sizes.rounds * sizes.rows * cost.recomputed * of_image


def head_s(sizes: Sizes, machine: Machine) -> float:
    """Return the seconds of the head's products, logits and traffic in a step, without the centers' update."""
    batch, drawn, dim, kept = sizes.batch, sizes.drawn, sizes.embedding_dim, sizes.kept_classes
    products = _KERNEL_PRODUCTS * drawn if machine.device == "cuda" else 3 * kept + 4 * (drawn - kept)
    seconds = 2 * batch * dim * products / machine.products[sizes.products]
    seconds += _PASSES[sizes.products] * batch * (2 * drawn - kept) / machine.exponentials
    traffic = drawn * dim * (3 * sizes.centers_bytes + 5 * _WIDE) + 2 * batch * kept * sizes.narrow
    if sizes.sample_rate < 1:
        traffic += _HASH_BYTES * sizes.shard + 4 * _WIDE * drawn * dim
    return sizes.rounds * (seconds + traffic / machine.memory_per_s)


def update_s(sizes: Sizes, cost: BackboneCost, machine: Machine) -> float:
    """Return the seconds of the optimizer's step, which is memory traffic, and of the gradient's norm."""
    passes = 3 + 2 * sizes.states
    rows = sizes.drawn if sizes.fused else sizes.shard
    copies = 2 if sizes.sample_rate < 1 or sizes.centers_bytes < _WIDE else 1
    centers = copies * passes * rows * sizes.embedding_dim * sizes.centers_bytes
    if sizes.centers_bytes < _WIDE:
        centers += _ROUNDING_BYTES[machine.device] * (1 + sizes.states) * rows * sizes.embedding_dim
    of_backbone = (passes + 1) * _WIDE * cost.parameters / sizes.weight_shards
    return (centers + of_backbone) / machine.memory_per_s


def step_time(sizes: Sizes, cost: BackboneCost, machine: Machine, links: Links, name: str = "") -> dict[str, float]:
    """Return the seconds of a step by part; of hidden communication what shows.

    Args:
        sizes: of the step.
        cost: of its backbone.
        machine: of each rank.
        links: between nodes.
        name: of the backbone, whose measured rate is taken where the machine has one.
    """
    backbone = backbone_s(sizes, cost, machine, name)
    sent = collectives(sizes, cost)
    hidden = sum(collective_s(one, machine, links) for one in sent if one.hidden)
    # Gradients are summed in the last round's backward pass; weights that are shared out travel in all passes.
    beside = backbone if sizes.weight_shards > 1 else _BACKWARD_SHARE * backbone / sizes.rounds
    shown = max(0.0, hidden - machine.overlap * beside)
    across = sum(collective_s(one, machine, links) for one in sent if one.what == "centers' gradient")
    head = sum(collective_s(one, machine, links) for one in sent if not one.hidden) - across
    return {
        "backbone": backbone,
        "head": head_s(sizes, machine),
        "optimizer": update_s(sizes, cost, machine),
        "head's communication": head,
        "centers' gradient between groups": across,
        "backbone's communication, not hidden": shown,
    }
