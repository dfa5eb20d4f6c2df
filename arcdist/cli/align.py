"""``arcdist align``: photographs to aligned faces."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.evaluate.report import write_json
from arcdist.prepare.align import AlignConfig, align

USAGE = "arcdist align IMAGE_FOLDER OUT_FOLDER [landmarks=FILE] [key=value …] [--json PATH]"
_SHOWN = 10


@dataclass
class AlignArguments(AlignConfig):
    """What ``arcdist align`` is told."""

    json: str = field(default="", metadata={"help": "file for the report"})


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist align`` and return the exit code: 1 where no image has a face."""
    if wants_help(arguments):
        print(help_page(USAGE, AlignArguments))
        return 0
    config = parse(AlignArguments, arguments, positions=("images", "output"))
    report = align(config)
    print(
        f"{config.output}: {report.aligned} faces of {report.images} images, {report.kept} were there; "
        f"{len(report.no_face)} images without a face, {len(report.several_faces)} with several (the {config.face} "
        f"was taken), {len(report.unreadable)} unreadable"
    )
    for title, lines in (("no face in", report.no_face), ("unreadable:", report.unreadable)):
        for line in lines[:_SHOWN]:
            print(f"  {title} {line}")
        if len(lines) > _SHOWN:
            print(f"  … and {len(lines) - _SHOWN} more (--json PATH lists them)")
    if config.json:
        write_json(config.json, asdict(report))
    return 0 if report.aligned + report.kept else 1
