"""``arcdist plan``: what a configuration needs on a cluster."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from arcdist.bench.plan import GPUS, Cluster, Plan, Sizes, backbone_cost, communication, memory, step_time
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.compose import compose_config
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json
from arcdist.train.config import TrainConfig

USAGE = "arcdist plan [recipe=NAME] [gpus=N] [gpu=KIND] [classes=N] [key=value of train …] [--json PATH]"
_RANKS = (1, 8, 64, 512, 4096)
_GIB = 2**30


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist plan`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, Cluster))
        return 0
    arguments, path = _json_path(arguments)
    own = {item.name for item in fields(Cluster)}
    mine = [argument for argument in arguments if argument.partition("=")[0] in own]
    cluster = parse(Cluster, mine)
    cluster.validate()
    config = compose_config([argument for argument in arguments if argument not in mine])
    config.validate()
    plan = _plan(config, cluster)
    result = _result(plan)
    _show(plan, result)
    if path:
        write_json(path, result)
    return 0


def _json_path(arguments: Sequence[str]) -> tuple[list[str], str]:
    rest = list(arguments)
    if "--json" not in rest:
        return rest, ""
    place = rest.index("--json")
    if place + 1 == len(rest):
        raise ConfigError("--json: needs a path")
    path = rest[place + 1]
    return rest[:place] + rest[place + 2 :], path


def _plan(config: TrainConfig, cluster: Cluster) -> Plan:
    precision = "bf16" if config.train.precision == "auto" else config.train.precision
    sizes = Sizes(
        config.train.micro_batch(cluster.gpus),
        cluster.gpus,
        cluster.classes * config.head.subcenters,
        config.backbone.embedding_dim,
        precision,
        config.head.sample_rate,
        2 if config.head.dtype == "bf16" else 4,
        2 if config.optim.name == "adamw" else 1,
        config.head.update != "separate" and precision != "fp16",
        config.head.kept_mib,
    )
    return Plan(sizes, backbone_cost(config.backbone, precision), cluster)


def _result(plan: Plan) -> dict[str, Any]:
    """Return the plan as a file has it."""
    alone = plan.with_(ranks=1).images_per_s
    scaling = {ranks: plan.with_(ranks=ranks) for ranks in _RANKS}
    return {
        "cluster": asdict(plan.cluster),
        "gpu": asdict(GPUS[plan.cluster.gpu]),
        "sizes": asdict(plan.sizes),
        "backbone": asdict(plan.cost),
        "memory_bytes": memory(plan.sizes, plan.cost),
        "step_s": step_time(plan.sizes, plan.cost, plan.cluster),
        "communication_bytes": communication(plan.sizes, plan.cost),
        "fits": plan.fits,
        "largest_rows": plan.largest_rows(),
        "images_per_s": plan.images_per_s,
        "epoch_hours": plan.epoch_hours,
        "epoch_cost": plan.epoch_hours * plan.cluster.gpus * plan.cluster.price,
        "scaling": [
            {"gpus": ranks, "images_per_s": one.images_per_s, "efficiency": one.images_per_s / (ranks * alone),
             "memory_bytes": one.memory_bytes, "fits": one.fits}
            for ranks, one in scaling.items()
        ],
        "ways": [
            {"way": name, "memory_bytes": one.memory_bytes, "fits": one.fits, "images_per_s": one.images_per_s,
             "largest_rows": one.largest_rows()}
            for name, one in plan.ways().items()
        ],
    }  # fmt: skip


def _show(plan: Plan, result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    sizes, cluster = plan.sizes, plan.cluster
    console.print(
        f"{cluster.gpus} × {cluster.gpu} ({GPUS[cluster.gpu].source}), {sizes.rows} rows each, "
        f"{sizes.num_classes:,} centers, {sizes.precision}: a model, not a measurement"
    )
    parts = _table("memory of a GPU", "GiB")
    for name, count in result["memory_bytes"].items():
        parts.add_row(name, f"{count / _GIB:.2f}")
    parts.add_row("all", f"{plan.memory_bytes / _GIB:.2f}" + ("" if plan.fits else "  does not fit"))
    times = _table("time of a step", "ms")
    for name, seconds in result["step_s"].items():
        times.add_row(name, f"{1000 * seconds:.2f}")
    sent = _table("communication of a step", "MB")
    for name, count in result["communication_bytes"].items():
        sent.add_row(name, f"{count / 1e6:.2f}")
    scaling = _table("GPUs", "images/s", "efficiency", "GiB")
    for row in result["scaling"]:
        fits = "" if row["fits"] else "  does not fit"
        numbers = (f"{row['images_per_s']:,.0f}", f"{row['efficiency']:.0%}", f"{row['memory_bytes'] / _GIB:.1f}{fits}")
        scaling.add_row(f"{row['gpus']:,}", *numbers)
    ways = _table("way", "GiB", "images/s", "largest batch of a GPU")
    for row in result["ways"]:
        memory_ = f"{row['memory_bytes'] / _GIB:.1f}" + ("" if row["fits"] else "  does not fit")
        ways.add_row(row["way"], memory_, f"{row['images_per_s']:,.0f}", f"{row['largest_rows']:,}")
    for table in (parts, times, sent, scaling, ways):
        console.print(table)
    cost = f", costs {result['epoch_cost']:,.2f}" if cluster.price else ""
    console.print(f"{plan.images_per_s:,.0f} images/s; an epoch takes {plan.epoch_hours:.2f} hours{cost}")
    if not plan.fits:
        console.print("does not fit: more gpus, a way above, fewer rows, or backbone.checkpoint_activations=true")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
