"""``arcdist bench``: what is faster and leaner than what on this machine."""

from collections.abc import Sequence

from rich.console import Console

from arcdist.bench import report
from arcdist.bench.data import DataBenchConfig, as_table, bench_data
from arcdist.bench.head import HeadBenchConfig, bench_head
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json
from arcdist.runtime.log import set_up_log

USAGE = """arcdist bench head [--quick] [--classes N,N,…] [key=value …] [--json PATH]
       arcdist bench data [FILE.rec] [--quick] [key=value …] [--json PATH]"""
_TABLE_WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist bench`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, DataBenchConfig if "data" in arguments else HeadBenchConfig))
        return 0
    if not arguments or arguments[0] not in ("head", "data"):
        raise ConfigError(f"{arguments[0] if arguments else 'nothing'!r}: must be head or data; usage: {USAGE}")
    set_up_log(0)
    if arguments[0] == "data":
        return _data(parse(DataBenchConfig, arguments[1:], positions=("file",)))
    return _head(parse(HeadBenchConfig, arguments[1:]))


def _data(config: DataBenchConfig) -> int:
    result = bench_data(config)
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(as_table(result))
    if config.json:
        write_json(config.json, result)
    return 0


def _head(config: HeadBenchConfig) -> int:
    result = bench_head(config, lambda so_far: write_json(config.json, so_far) if config.json else None)
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    for table in report.tables(result):
        console.print(table)
    if config.pictures:
        for picture in report.draw(config.pictures, result):
            print(picture)
    return 0
