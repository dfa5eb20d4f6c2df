"""``arcdist bench``: what is faster and leaner than what on this machine."""

from collections.abc import Sequence

from rich.console import Console

from arcdist.bench import report
from arcdist.bench.head import HeadBenchConfig, bench_head
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json
from arcdist.runtime.log import set_up_log

USAGE = "arcdist bench head [--quick] [--classes N,N,…] [key=value …] [--json PATH]"
_TABLE_WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist bench`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, HeadBenchConfig))
        return 0
    if not arguments or arguments[0] != "head":
        raise ConfigError(f"{arguments[0] if arguments else 'nothing'!r}: must be head; usage: {USAGE}")
    set_up_log(0)
    return _head(parse(HeadBenchConfig, arguments[1:]))


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
