"""``arcdist plan``: what a configuration needs on a cluster."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from arcdist.bench.plan import Cluster, Plan
from arcdist.bench.plan_machine import GPUS
from arcdist.bench.plan_measured import machine_from_bench
from arcdist.bench.plan_memory import memory, memory_by_moment
from arcdist.bench.plan_network import backbone_cost
from arcdist.bench.plan_sizes import Sizes
from arcdist.bench.plan_time import collectives
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.compose import compose_config
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.report import write_json

USAGE = (
    "arcdist plan [recipe=NAME] [gpus=N] [gpu=KIND | machine=BENCH.json] [classes=N] [key=value of train …] "
    "[picture=FILE.png] [--json PATH]"
)
_GIB = 2**30
_OUTPUTS = ("--json", "picture")


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist plan`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, Cluster))
        return 0
    arguments, places = _outputs(arguments)
    own = {item.name for item in fields(Cluster)}
    mine = [argument for argument in arguments if argument.partition("=")[0] in own]
    cluster = parse(Cluster, mine)
    cluster.validate()
    config = compose_config([argument for argument in arguments if argument not in mine])
    config.validate()
    machine = machine_from_bench(cluster.machine) if cluster.machine else GPUS[cluster.gpu]
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if "bf16" in machine.convolutions else "fp32"
    if precision not in machine.convolutions:
        raise ConfigError(
            f"train.precision: {precision!r}: {cluster.machine or cluster.gpu} has rates of "
            f"{', '.join(machine.convolutions)} only"
        )
    sizes = Sizes.of(config, cluster.gpus, cluster.classes, precision, machine.device)
    cost = backbone_cost(config.backbone, precision, config.data.image_size)
    plan = Plan(sizes, cost, cluster, machine, config.backbone.name)
    result = _result(plan)
    _show(plan, result)
    if "--json" in places:
        write_json(places["--json"], result)
    if "picture" in places:
        _draw(places["picture"], plan, result)
    return 0


def _outputs(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments without the files to write, and these by their names."""
    rest, places = [], {}
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, place = argument.partition("=")
        name = "picture" if name == "--picture" else name
        if name not in _OUTPUTS:
            rest.append(argument)
            continue
        place = place if equals else next(waiting, "")
        if not place:
            raise ConfigError(f"{name}: needs a path")
        places[name] = place
    return rest, places


def _result(plan: Plan) -> dict[str, Any]:
    """Return the plan as a file has it."""
    alone = plan.with_(ranks=1).images_per_s
    sent = collectives(plan.sizes, plan.cost)
    return {
        "cluster": asdict(plan.cluster),
        "machine": asdict(plan.machine),
        "sizes": asdict(plan.sizes),
        "backbone": asdict(plan.cost),
        "memory_bytes": memory(plan.sizes, plan.cost),
        "moments": {name: sum(parts.values()) for name, parts in memory_by_moment(plan.sizes, plan.cost).items()},
        "step_s": plan.step_time(),
        "collectives": [asdict(one) for one in sent],
        "fits": plan.fits,
        "advice": plan.advice(),
        "largest_rows": plan.largest_rows(),
        "images_per_s": plan.images_per_s,
        "epoch_hours": plan.epoch_hours,
        "epoch_cost": plan.epoch_cost,
        "scaling": [_scaled(one, alone) for one in plan.scaling()],
        "ways": [
            {"way": name, "memory_bytes": one.memory_bytes, "fits": one.fits, "images_per_s": one.images_per_s,
             "epoch_hours": one.epoch_hours, "epoch_cost": one.epoch_cost, "largest_rows": one.largest_rows()}
            for name, one in plan.ways().items()
        ],
    }  # fmt: skip


def _scaled(plan: Plan, alone: float) -> dict[str, Any]:
    """Return a row of the scaling; ``grouped`` is the same with the best ``head.group_size``."""
    grouped = plan.with_(group_size=plan.best_group())
    ranks = plan.sizes.ranks
    return {
        "gpus": ranks,
        "images_per_s": plan.images_per_s,
        "efficiency": plan.images_per_s / (ranks * alone),
        "memory_bytes": plan.memory_bytes,
        "fits": plan.fits,
        "epoch_hours": plan.epoch_hours,
        "epoch_cost": plan.epoch_cost,
        "group_size": grouped.sizes.group_size,
        "grouped_efficiency": grouped.images_per_s / (ranks * alone),
    }


def _draw(path: str, plan: Plan, result: dict[str, Any]) -> None:
    from arcdist.evaluate.plots_plan import draw_plan  # matplotlib takes a second to import

    scaling = {"as configured": [(row["gpus"], row["efficiency"]) for row in result["scaling"]]}
    if any(row["group_size"] for row in result["scaling"]):
        scaling["with the best head.group_size"] = [
            (row["gpus"], row["grouped_efficiency"]) for row in result["scaling"]
        ]
    try:
        draw_plan(
            path,
            {name: count / _GIB for name, count in result["memory_bytes"].items()},
            plan.capacity_bytes / _GIB,
            {name: 1000 * seconds for name, seconds in result["step_s"].items()},
            scaling,
            _title(plan),
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be drawn: {error}") from error


def _title(plan: Plan) -> str:
    sizes = plan.sizes
    return (
        f"{sizes.ranks:,} × {plan.machine.name}, {plan.backbone}, {sizes.rows} rows each, "
        f"{sizes.num_classes:,} centers, {sizes.precision}"
    )


def _show(plan: Plan, result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"{_title(plan)}\nrates: {plan.machine.source}. A model, not a measurement: docs/plan.md")
    parts = _table("memory of a GPU", "GiB")
    for name, count in result["memory_bytes"].items():
        parts.add_row(name, f"{count / _GIB:.2f}")
    has = f" of {plan.capacity_bytes / _GIB:.0f}"
    parts.add_row("all", f"{plan.memory_bytes / _GIB:.2f}{has if plan.fits else ' does not fit'}")
    times = _table("time of a step", "ms")
    for name, seconds in result["step_s"].items():
        times.add_row(name, f"{1000 * seconds:.2f}")
    sent = _table("communication of a step", "MiB")
    for one in result["collectives"]:
        sent.add_row(f"{one['what']}, {one['kind']}", f"{one['bytes'] / 2**20:.2f}")
    scaling = _table("gpus", "images/s", "efficiency", "GiB", "hours", "best group", "then")
    for row in result["scaling"]:
        fits = "" if row["fits"] else "  does not fit"
        scaling.add_row(
            f"{row['gpus']:,}", f"{row['images_per_s']:,.0f}", f"{row['efficiency']:.0%}",
            f"{row['memory_bytes'] / _GIB:.1f}{fits}", f"{row['epoch_hours']:.3g}",
            f"{row['group_size'] or 'all'}", f"{row['grouped_efficiency']:.0%}",
        )  # fmt: skip
    ways = _table("way", "GiB", "images/s", "hours", "most rows")
    for row in result["ways"]:
        memory_ = f"{row['memory_bytes'] / _GIB:.1f}" + ("" if row["fits"] else "  does not fit")
        numbers = (memory_, f"{row['images_per_s']:,.0f}", f"{row['epoch_hours']:.3g}", f"{row['largest_rows']:,}")
        ways.add_row(row["way"], *numbers)
    for table in (parts, times, *([sent] if result["collectives"] else []), scaling, ways):
        console.print(table)
    cost = f", costs {result['epoch_cost']:,.2f}" if plan.cluster.price else ""
    console.print(f"{plan.images_per_s:,.0f} images/s; an epoch takes {plan.epoch_hours:.3g} hours{cost}")
    if result["advice"]:
        console.print("does not fit. What would, the first changing results least:")
        for line in result["advice"]:
            console.print(f"  {line}")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
