"""``arcdist doctor``: whether this machine, or the ranks that torchrun has started, are fit to train."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.doctor.examine import DoctorConfig, examine
from arcdist.doctor.finding import Row, worst
from arcdist.evaluate.report import write_json

USAGE = """arcdist doctor [ranks=N] [data=PATH] [folder=PATH] [key=value …] [--json PATH]
       torchrun … --module arcdist doctor …     the ranks of all nodes, and the links between them"""
_SIGNS = {"ok": "[green]ok[/]", "advice": "[yellow]advice[/]", "fault": "[red]fault[/]"}


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist doctor`` and return the exit code: 1 where something keeps a run from training."""
    if wants_help(arguments):
        print(help_page(USAGE, DoctorConfig))
        return 0
    config = parse(DoctorConfig, arguments)
    config.validate()
    found = examine(config)
    if not found:  # rank 0 tells
        return 0
    fit = worst(row.finding for row in found) != "fault"
    _show(found, fit)
    if config.json:
        write_json(config.json, _result(found, fit))
    return 0 if fit else 1


def _result(found: Sequence[Row], fit: bool) -> dict[str, Any]:
    """Return the findings as a file has them."""
    return {"fit": fit, "findings": [{**asdict(row.finding), "ranks": list(row.ranks)} for row in found]}


def _show(found: Sequence[Row], fit: bool) -> None:
    console = Console(highlight=False)
    table = Table.grid("", "", Column(overflow="fold"), padding=(0, 2))  # no end of a long path is left out
    for row in found:
        finding = row.finding
        where = f"{row.where}: " if row.ranks else ""
        table.add_row(finding.subject, _SIGNS[finding.verdict], escape(f"{where}{finding.found}"))
        if finding.advice:
            table.add_row("", "", escape(f"→ {finding.advice}"))
    console.print(table)
    console.print("fit to train" if fit else "[red]not fit to train[/]: mend the faults above")
