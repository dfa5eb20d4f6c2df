"""The memory of a step, part by part, at each of its moments; the fullest one is what a rank needs.

A model of what ``train.step.Step``, the blockwise head and ``optim.CenterUpdate`` allocate, line by line. (On a GPU
with Triton the head makes fewer logits than this.)
"""

from arcdist.bench.plan_network import BackboneCost, Line, bytes_at
from arcdist.bench.plan_sizes import Sizes

_CUDA_BYTES = 1.0e9  # of CUDA, its libraries and NCCL; an assumption
_WIDE = 4  # bytes of a float32
_LABEL = 8

Parts = dict[str, float]


def memory(sizes: Sizes, cost: BackboneCost) -> Parts:
    """Return the bytes on a rank by part, at the moment of a step that takes most."""
    return max(memory_by_moment(sizes, cost).values(), key=lambda parts: sum(parts.values()))


def memory_by_moment(sizes: Sizes, cost: BackboneCost) -> dict[str, Parts]:
    """Return the bytes on a rank by part, for each moment of a step that may be the fullest."""
    always, held = _always(sizes, cost), _held_by_head(sizes)
    shares = sizes.weight_shards > 1
    distributed = sizes.ranks > 1 and not shares
    gradients = _WIDE * cost.parameters / sizes.weight_shards
    before = gradients if distributed or sizes.rounds > 1 else 0.0  # DDP's buckets; an earlier round's
    narrow = sizes.gradient_bytes * cost.parameters if distributed and sizes.gradient_bytes < _WIDE else 0.0
    gathered = _gathered(sizes, cost) if shares else {}
    earlier = {part: count * (sizes.rounds - 1) for part, count in held.items()}
    dense = 0.0 if sizes.fused else float(sizes.shard * sizes.embedding_dim * sizes.centers_bytes)
    dense_before = dense if sizes.rounds > 1 else 0.0

    def moment(lines: tuple[Line, ...], *others: Parts) -> Parts:
        return _sum(always, {"activations": bytes_at(lines, sizes.rows)}, *others)

    embeddings = {"embeddings of all ranks": float(2 * sizes.batch * sizes.embedding_dim * _WIDE)}
    return {
        "forward pass": moment(
            cost.forward, earlier, gathered.get("forward pass", {}),
            {"backbone's gradients": before, "centers' gradient": dense_before},
        ),
        "head, forward": moment(
            (cost.kept,), earlier, held, embeddings, _head_forward(sizes), gathered.get("head", {}),
            {"backbone's gradients": before},
        ),
        "head, backward": moment(
            (cost.kept,), earlier, held, embeddings, {"embeddings of all ranks": 3.0 * _rows_bytes(sizes)},
            gathered.get("head", {}),
            {"backbone's gradients": before, "centers' gradient": dense},
            {} if sizes.fused else _update(sizes, applied=False),
        ),
        "backward pass": moment(
            cost.backward if before or shares else cost.backward_growing, earlier, held,
            gathered.get("backward pass", {}),
            {"backbone's gradients": before, "gradients as they are sent": narrow, "centers' gradient": dense},
        ),
        "update": _sum(
            always, earlier, held, {"backbone's gradients": gradients},
            _update(sizes, applied=True) if sizes.fused else {"centers' gradient": dense},
        ),
    }  # fmt: skip


def _always(sizes: Sizes, cost: BackboneCost) -> Parts:
    """Return what a step begins and ends with."""
    centers = sizes.shard * sizes.embedding_dim * sizes.centers_bytes
    pixels = 3 * sizes.image_size**2
    missed = _WIDE * sizes.shard if sizes.fused and sizes.dense else 0  # which steps a center has missed
    return {
        "backbone": _WIDE * (cost.parameters + cost.frozen) / sizes.weight_shards,
        "backbone's optimizer": _WIDE * sizes.states * cost.parameters / sizes.weight_shards,
        "centers": float(centers),
        "centers' optimizer": float(sizes.states * centers + missed),
        "images": float(sizes.rows * sizes.rounds * pixels * _WIDE),
        "CUDA": _CUDA_BYTES if sizes.device == "cuda" else 0.0,
    }


def _gathered(sizes: Sizes, cost: BackboneCost) -> dict[str, Parts]:
    """Return what is there at a time of weights that ranks share out, and of gradients on their way, by moment.

    As a unit is gathered, its weights are there twice, as sent and in their places; as its gradients are scattered,
    they are there as made (which ``backward`` counts), as sent, and this rank's part of them.
    """
    shards = sizes.weight_shards
    bytes_of = {unit: _WIDE * unit.weights(shards) for unit in cost.units}
    sent = sizes.gradient_bytes * max((unit.gradients(shards) for unit in cost.units), default=0)
    largest = max((bytes_of[unit] for unit in cost.units if unit.is_block), default=0)
    blocks = sum(unit.count * bytes_of[unit] for unit in cost.units if unit.is_block)
    stay = sum(unit.count * bytes_of[unit] for unit in cost.units if not unit.is_block)
    most = max((bytes_of[unit] for unit in cost.units), default=0)
    kept = 0 if sizes.reshard else blocks
    name = "weights gathered"
    return {
        "forward pass": {name: float(stay + (kept or largest) + most)},
        "head": {name: float(stay + kept)},
        "backward pass": {name: float(stay + (kept or largest)), "gradients as they are sent": sent * (1 + 1 / shards)},
    }


def _rows_bytes(sizes: Sizes) -> int:
    return sizes.batch * sizes.embedding_dim * _WIDE


def _held_by_head(sizes: Sizes) -> Parts:
    """Return what a round's scoring keeps until the centers have changed."""
    all_kept = sizes.kept_classes == sizes.drawn
    # In float32 the exponentials that are kept are the logits themselves; else those have a place of their own.
    place = 0 if all_kept and sizes.narrow == _WIDE else sizes.batch * sizes.block * _WIDE
    rows = _LABEL * sizes.drawn if sizes.sample_rate < 1 else 0
    operand = sizes.batch * sizes.embedding_dim * sizes.narrow if sizes.narrow < _WIDE else 0
    return {
        "logits": float(place + sizes.batch * sizes.kept_classes * sizes.narrow),
        "embeddings of all ranks": float(3 * _rows_bytes(sizes) + operand),  # unit, own center, mean center
        "class by class": float(_WIDE * sizes.drawn + rows),
    }


def _head_forward(sizes: Sizes) -> Parts:
    """Return what passes within the scoring of a block, or within the gathering before it."""
    rows = sizes.block * sizes.embedding_dim
    narrow = sizes.narrow < _WIDE
    wide_copy = rows * _WIDE if sizes.sample_rate < 1 or sizes.centers_bytes < _WIDE else 0
    logits = sizes.batch * sizes.block * sizes.narrow if narrow else 0
    return {
        "blocks of centers": float(wide_copy + (rows * sizes.narrow if narrow else 0)),
        "logits": float(logits),
        "communication": float(_rows_bytes(sizes) if sizes.shards > 1 else 0),
        "class by class": float(sizes.shard if sizes.sample_rate < 1 else 0),
    }


def _update(sizes: Sizes, applied: bool) -> Parts:
    """Return what the centers' gradient takes block by block, and the optimizer's step on it if it is ``applied``."""
    rows, copied = sizes.block * sizes.embedding_dim, sizes.sample_rate < 1 or sizes.centers_bytes < _WIDE
    narrow = sizes.narrow < _WIDE
    again = sizes.kept_classes < sizes.drawn
    wide_copy = rows * _WIDE if copied else 0
    operands = (rows * sizes.narrow if narrow else 0) + (wide_copy if again else 0)
    projection = rows * _WIDE + wide_copy
    step = (1 + sizes.states) * rows * _WIDE if copied and applied else 0
    if sizes.centers_bytes < _WIDE and applied:
        step += 3 * rows * _WIDE  # the draws of rounding
    logits = sizes.batch * sizes.block * sizes.narrow if again and narrow else 0
    return {
        "centers' gradient": float(rows * _WIDE),
        "blocks of centers": float(max(operands, projection, step)),
        "logits": float(logits),
        "embeddings of all ranks": float(1.5 * _rows_bytes(sizes)),
    }


def _sum(*parts: Parts) -> Parts:
    total: Parts = {}
    for some in parts:
        for name, count in some.items():
            total[name] = total.get(name, 0.0) + count
    return {name: count for name, count in total.items() if count}
