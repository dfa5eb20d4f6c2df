"""``arcdist pack``: a folder of images, other sets, or rendered faces, to a .rec or a .bin."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.keys import help_lines, keys_of
from arcdist.data.synthetic import SyntheticConfig, write_pairs, write_record
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json
from arcdist.prepare.pack import PackConfig, pack
from arcdist.prepare.pairs import PairsConfig, pack_pairs
from arcdist.prepare.repack import RepackConfig, repack

USAGE = """arcdist pack IMAGE_FOLDER OUT.rec [key=value …]              one folder an identity
       arcdist pack A.rec [B.rec …] OUT.rec [key=value …]           merged, split or filtered by identity
       arcdist pack IMAGE_FOLDER OUT.bin pairs=PAIRS.txt            a verification set of LFW's pairs.txt
       arcdist pack synthetic OUT.rec|OUT.bin [key=value …]         rendered identities"""
_POSITIONS = ("images", "output")
_SKIPPED_SHOWN = 10


@dataclass
class PackArguments(PackConfig):
    """What ``arcdist pack IMAGE_FOLDER OUT.rec`` is told."""

    json: str = field(default="", metadata={"help": "file for the report; empty: none"})


@dataclass
class RepackArguments(RepackConfig):
    """What ``arcdist pack A.rec OUT.rec`` is told."""

    json: str = field(default="", metadata={"help": "file for the report; empty: none"})


@dataclass
class PairsArguments(PairsConfig):
    """What ``arcdist pack IMAGE_FOLDER OUT.bin`` is told."""

    json: str = field(default="", metadata={"help": "file for the report; empty: none"})


@dataclass
class RenderArguments(SyntheticConfig):
    """What ``arcdist pack synthetic OUT`` is told."""

    images: str = field(default="synthetic", metadata={"help": "the word synthetic"})
    output: str = field(default="", metadata={"help": "the .rec or .bin to write"})
    pairs: int = field(default=1000, metadata={"help": "of a .bin: pairs, half of them genuine"})
    json: str = field(default="", metadata={"help": "file for the report; empty: none"})


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist pack`` and return the exit code."""
    if wants_help(arguments):
        print(_help())
        return 0
    arguments = _with_one_source(arguments)
    images, output = _named(arguments)
    if images == "synthetic" and not Path("synthetic").is_dir():
        return _render(parse(RenderArguments, arguments, _POSITIONS))
    if images.endswith(".rec") and not Path(images).is_dir():
        return _repack(parse(RepackArguments, arguments, _POSITIONS))
    if Path(output).suffix == ".bin":
        return _pack_pairs(parse(PairsArguments, arguments, _POSITIONS))
    return _pack_folder(parse(PackArguments, arguments, _POSITIONS))


def _words(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are no keys, and no values of one."""
    return [
        argument
        for before, argument in zip(["", *arguments], arguments)
        if "=" not in argument and not argument.startswith("--") and not _takes_value(before)
    ]


def _takes_value(argument: str) -> bool:
    """Return whether the argument after this one is its value: of ``--key``, unless that is true or false."""
    kinds = (PackArguments, RepackArguments, PairsArguments, RenderArguments)
    flags = {key.name for kind in kinds for key in keys_of(kind) if isinstance(key.default, bool)}
    return argument.startswith("--") and "=" not in argument and argument[2:].replace("-", "_") not in flags


def _with_one_source(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments, in which A.rec B.rec OUT.rec has become A.rec,B.rec OUT.rec."""
    words = _words(arguments)
    if len(words) < 3 or not all(word.endswith(".rec") for word in words):
        return arguments
    return [",".join(words[:-1]), words[-1], *(argument for argument in arguments if argument not in words)]


def _named(arguments: Sequence[str]) -> tuple[str, str]:
    """Return what is packed and where to, which decide how the rest is read; empty where they are not given."""
    words = _words(arguments)
    keys = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("images=", "output=")))
    images = keys.get("images") or (words.pop(0) if words else "")
    return images, keys.get("output") or (words.pop(0) if words else "")


def _help() -> str:
    sections = {".rec to .rec": RepackConfig, "a .bin of pairs": PairsConfig, "rendered identities": SyntheticConfig}
    more = [line for title, kind in sections.items() for line in ("", title, *help_lines(kind))]
    return "\n".join([help_page(USAGE, PackArguments), *more])


def _pack_folder(config: PackArguments) -> int:
    report = pack(config)
    print(
        f"{report.output}: {report.images} images of {report.identities} identities; {report.kept} as they were, "
        f"{report.encoded} encoded, {report.resized} resized; {len(report.skipped)} files skipped"
        + (f"; {report.resumed} were there of an interrupted pack" if report.resumed else "")
    )
    for skipped in report.skipped[:_SKIPPED_SHOWN]:
        print(f"  skipped {skipped.file}: {skipped.reason}")
    if len(report.skipped) > _SKIPPED_SHOWN:
        print(f"  … and {len(report.skipped) - _SKIPPED_SHOWN} more (--json PATH lists them)")
    return _leave(config.json, asdict(report))


def _repack(config: RepackArguments) -> int:
    report = repack(config)
    print(
        f"{report.output}: {report.images} images of {report.identities} identities; {report.left_out} images of "
        f"{', '.join(report.sources)} left out"
    )
    return _leave(config.json, asdict(report))


def _pack_pairs(config: PairsArguments) -> int:
    report = pack_pairs(config)
    print(f"{report.output}: {report.pairs} pairs, {report.genuine} of them genuine, of {report.images} images")
    return _leave(config.json, asdict(report))


def _render(config: RenderArguments) -> int:
    suffix = Path(config.output).suffix
    if suffix == ".rec":
        write_record(config, config.output)
        print(f"{config.output}: {config.identities} identities, {config.images_per_identity} images of each")
    elif suffix == ".bin":
        write_pairs(config, config.output, config.pairs)
        print(f"{config.output}: {config.pairs} pairs of other identities")
    else:
        raise ConfigError(f"output: {config.output!r}: must end in .rec or .bin")
    return _leave(config.json, asdict(config))


def _leave(path: str, report: dict[str, Any]) -> int:
    if path:
        write_json(path, report)
    return 0
