"""``arcdist report``: a finished run as one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.html_report import html_report

USAGE = "arcdist report RUN [path=FILE.html]"


@dataclass
class ReportArguments:
    """What ``arcdist report`` is told."""

    run: str = field(default="", metadata={"help": "a finished run's folder"})
    path: str = field(default="", metadata={"help": "of the file; empty: RUN/report.html"})


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist report`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, ReportArguments))
        return 0
    config = parse(ReportArguments, arguments, positions=("run",))
    if not config.run:
        raise ConfigError(f"no run is named; usage: {USAGE}")
    path = Path(config.path or Path(config.run) / "report.html")
    page = html_report(Path(config.run))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    print(path)
    return 0
