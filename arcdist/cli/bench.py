"""``arcdist bench``: what is faster and leaner than what on this machine, and what damage does."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from arcdist.bench import report
from arcdist.bench.cleaning import CleaningBenchConfig, bench_cleaning
from arcdist.bench.compare import CompareConfig, bench_compare, comparison_table
from arcdist.bench.data import DataBenchConfig, as_table, bench_data
from arcdist.bench.evaluation import EvaluateBenchConfig, bench_evaluate, evaluation_table
from arcdist.bench.faults import FaultsConfig, faults
from arcdist.bench.fuzz import FuzzConfig, fuzz
from arcdist.bench.fuzz_sets import Sets
from arcdist.bench.fuzz_weights import Checkpoints, Weights
from arcdist.bench.guards import GuardsConfig, bench_guards
from arcdist.bench.head import HeadBenchConfig, bench_head
from arcdist.bench.parts import PartsConfig, bench_parts, parts_tables
from arcdist.bench.plan_check import PlanBenchConfig, bench_plan, check_tables
from arcdist.bench.stall import StallConfig, bench_stall
from arcdist.bench.step import StepBenchConfig, bench_step, step_tables
from arcdist.bench.trace import PARTS, PictureConfig, parts_ms, read_steps
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.strange_configurations import Configurations
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.report import write_json
from arcdist.runtime.log import set_up_log

_TABLE_WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist bench`` and return the exit code."""
    named = BENCHES.get(arguments[0]) if arguments else None
    if wants_help(arguments):
        for bench in [named] if named else BENCHES.values():
            print(help_page(f"arcdist bench {bench.usage}", bench.config))
        return 0
    if named is None:
        found = repr(arguments[0]) if arguments else "nothing"
        raise ConfigError(f"bench: {found}: must be one of {', '.join(BENCHES)}; arcdist bench --help lists their keys")
    set_up_log(0)
    return named.run(parse(named.config, arguments[1:], positions=named.positions))


def _head(config: HeadBenchConfig) -> int:
    result = bench_head(config, lambda so_far: write_json(config.json, so_far) if config.json else None)
    _show(report.tables(result))
    if config.pictures:
        for picture in report.draw(config.pictures, result):
            print(picture)
    return 0


def _step(config: StepBenchConfig) -> int:
    _show(step_tables(bench_step(config, lambda so_far: write_json(config.json, so_far) if config.json else None)))
    return 0


def _parts(config: PartsConfig) -> int:
    _show(parts_tables(bench_parts(config, lambda so_far: write_json(config.json, so_far) if config.json else None)))
    return 0


def _plan(config: PlanBenchConfig) -> int:
    _show(check_tables(bench_plan(config, lambda so_far: write_json(config.json, so_far) if config.json else None)))
    return 0


def _data(config: DataBenchConfig) -> int:
    result = bench_data(config)
    _show([as_table(result)])
    if config.json:
        write_json(config.json, result)
    return 0


def _evaluate(config: EvaluateBenchConfig) -> int:
    result = bench_evaluate(config, lambda so_far: write_json(config.json, so_far) if config.json else None)
    _show([evaluation_table(result)])
    return 0


def _fuzz(config: FuzzConfig) -> int:
    result = fuzz(config, (Sets, Weights, Checkpoints, Configurations))
    for kind, outcomes in result["outcomes"].items():
        print(f"{kind}: {', '.join(f'{number} {outcome}' for outcome, number in outcomes.items())}")
    found = [line for kind in ("crashes", "hangs", "code_ran", "silent") for line in result[kind]]
    for line in found:
        print(f"  {line}")
    print(f"slowest input: {result['slowest_s']} s")
    if config.json:
        write_json(config.json, result)
    return 1 if found else 0


def _cleaning(config: CleaningBenchConfig) -> int:
    result = bench_cleaning(config)
    for kind, what in (
        ("noise", "wrong labels"), ("plain", "by plain means, as many"), ("same", "identities in two")
    ):  # fmt: skip
        counts = result["all"][kind]
        print(
            f"{what:<24} {counts['planted']:>5} planted, {counts['found']:>5} found: precision "
            f"{counts.get('precision', float('nan')):.3f}, recall {counts.get('recall', float('nan')):.3f}"
        )
    if config.json:
        write_json(config.json, result)
    return 0


def _faults(config: FaultsConfig) -> int:
    result = faults(config, lambda so_far: write_json(config.json, so_far) if config.json else None)
    for name, case in result["cases"].items():
        told = ", ".join(f"{key} {value}" for key, value in case.items() if isinstance(value, bool | int | float))
        print(f"{name}: {told}")
    return 0 if result["survived"] else 1


def _stall(config: StallConfig) -> int:
    result = bench_stall(config)
    for kind, seconds in result["median_s"].items():
        print(f"{kind:<12} {seconds:.3f} s")
    print(f"a background save keeps training waiting for {100 * result['share']:.1f} % of a synchronous one's time")
    if config.json:
        write_json(config.json, result)
    return 0


def _guards(config: GuardsConfig) -> int:
    result = bench_guards(config)
    print(f"a step                    {1000 * result['step']['median_s']:10.2f} ms")
    times = result["deterministic"]["times"]
    print(f"with deterministic kernels{1000 * result['deterministic']['median_s']:10.2f} ms, {times:.3f} times as long")
    for name, guard in result["guards"].items():
        each = f"{1000 * guard['median_s']:10.2f} ms, once in {guard['every']:,} steps"
        print(f"{name:<26}{each}: {100 * guard['share']:.3f} % of a step")
    if config.json:
        write_json(config.json, result)
    return 0


def _compare(config: CompareConfig) -> int:
    result = bench_compare(config)
    _show([comparison_table(result)])
    if config.json:
        write_json(config.json, result)
    return 1 if config.fail and result["slower"] else 0


def _picture(config: PictureConfig) -> int:
    from arcdist.evaluate.plots_step import step_lanes  # matplotlib takes a second to import

    steps = read_steps(config)
    lanes = []
    for rank, step in enumerate(steps):
        for what, stretches in (("step", step.parts), ("collectives", step.collectives)):
            lanes.append((f"rank {rank}, {what}", [(s.name, s.start_ms, s.end_ms) for s in stretches]))
    try:
        step_lanes(Path(config.picture), lanes, PARTS, f"{len(steps)} rank{'s' * (len(steps) > 1)}, by torch.profiler")
    except (OSError, ValueError) as error:
        raise DataError(f"picture: {config.picture}: cannot be written: {error}") from error
    print(config.picture)
    if config.json:
        write_json(config.json, {"ranks": parts_ms(steps)})
    return 0


def _show(tables: Iterable[Any]) -> None:
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    for table in tables:
        console.print(table)


@dataclass(frozen=True)
class Bench:
    """One of the things that ``arcdist bench`` measures."""

    usage: str
    config: type[Any]
    run: Callable[[Any], int]
    positions: tuple[str, ...] = ()


BENCHES = {
    "head": Bench("head [--quick] [--classes N,N,…] [key=value …] [--json PATH]", HeadBenchConfig, _head),
    "step": Bench("step [--quick] [--backbones NAME,NAME,…] [key=value …] [--json PATH]", StepBenchConfig, _step),
    "parts": Bench("parts [--quick] [parts=NAME,…] [key=value …] [--json PATH]", PartsConfig, _parts),
    "plan": Bench("plan [--quick] [parts=memory,time] [key=value …] [--json PATH]", PlanBenchConfig, _plan),
    "data": Bench("data [FILE.rec] [--quick] [key=value …] [--json PATH]", DataBenchConfig, _data, ("file",)),
    "evaluate": Bench("evaluate [--quick] [cases=NAME,…] [key=value …] [--json PATH]", EvaluateBenchConfig, _evaluate),
    "cleaning": Bench("cleaning FILE.rec [with=FILE.npy] [key=value …]", CleaningBenchConfig, _cleaning, ("file",)),
    "fuzz": Bench("fuzz [files=N] [key=value …] [--json PATH]", FuzzConfig, _fuzz),
    "faults": Bench("faults [CASE] [key=value …] [--json PATH]", FaultsConfig, _faults, ("case",)),
    "guards": Bench("guards [backbone=NAME] [ranks=N] [key=value …] [--json PATH]", GuardsConfig, _guards),
    "compare": Bench("compare A.json B.json [key=value …] [--json PATH]", CompareConfig, _compare, ("before", "after")),
    "picture": Bench("picture FOLDER [picture=FILE.png] [step=N] [--json PATH]", PictureConfig, _picture, ("folder",)),
    "stall": Bench("stall [mib=N] [key=value …] [--json PATH]", StallConfig, _stall),
}
