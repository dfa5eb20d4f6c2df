"""``arcdist evaluate protocol=NAME``: a benchmark's own lists, and the faces that they name."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.network import NetworkArguments, embed_images
from arcdist.cli.picture_files import PictureArguments
from arcdist.cli.protocol_pictures import draw_outcome
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError
from arcdist.evaluate.embedded_faces import EmbeddedFaces, is_embedded, read_embedded
from arcdist.evaluate.embedding_files import check_output
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.image_subset import ImageSubset
from arcdist.evaluate.model_source import load_model
from arcdist.evaluate.protocols.plan import Outcome, Plan, ProtocolConfig
from arcdist.evaluate.protocols.registry import PROTOCOLS
from arcdist.evaluate.report import write_json
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.world import World, open_world

T = TypeVar("T")

USAGE = "arcdist evaluate EMBEDDINGS|MODEL protocol={name} [images=FOLDER] [key=value …] [--json PATH]"


@dataclass
class _Named:
    model: str = field(
        default="", metadata={"help": "a file of `arcdist embed`; or a model as it takes one, and images="}
    )
    protocol: str = field(default="", metadata={"help": " | ".join(PROTOCOLS)})
    images: str = field(default="", metadata={"help": "of a model: the folder (.rec) that the lists' names are of"})
    keep: str = field(default="", metadata={"help": "of a model: file for the embeddings, .npy or .safetensors"})
    json: str = field(default="", metadata={"help": "file for the result"})


@dataclass
class FacesArguments(NetworkArguments, PictureArguments, _Named):
    """Where a protocol's faces come from."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not self.model:
            raise ConfigError(f"no embeddings and no model are named; usage: {USAGE.format(name=self.protocol)}")
        if is_embedded(self.model) == bool(self.images):
            raise ConfigError(
                f"images: {self.model} is a file of embeddings and needs none"
                if self.images
                else f"images: {self.model} is no file of `arcdist embed` (.npy or .safetensors with its .tsv beside "
                "it), so it is taken for a model, which needs images=FOLDER"
            )
        if self.keep:
            check_output(Path(self.keep))
        if self.pictures and not getattr(PROTOCOLS[self.protocol], "drawn", False):
            drawn = ", ".join(name for name, kind in PROTOCOLS.items() if getattr(kind, "drawn", False))
            raise ConfigError(f"pictures: nothing is drawn of {self.protocol}; it is of {drawn}")
        PictureArguments.validate(self)
        NetworkArguments.validate(self)


def main(arguments: Sequence[str], name: str) -> int:
    """Run ``arcdist evaluate protocol=name`` and return the exit code."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol: {name!r}: must be one of {', '.join(PROTOCOLS)}")
    kind = PROTOCOLS[name]
    both = make_dataclass("ProtocolArguments", [], bases=(FacesArguments, kind))
    if wants_help(arguments):
        print(help_page(USAGE.format(name=name), both))
        return 0
    asked = parse(both, arguments, positions=("model",))
    faces, protocol = _part(FacesArguments, asked), _part(kind, asked)
    faces.validate()
    world = open_world(faces.runtime)
    set_up_log(world.rank)
    if world.size > 1:
        collectives.from_rank_0(lambda: _look_at(faces, protocol))
    outcome = _from_embeddings(faces, protocol) if not faces.images else _from_model(faces, protocol, world)
    if world.is_first:
        _tell(faces, protocol, outcome)
    return 0


def _part(kind: type[T], asked: Any) -> T:
    return kind(**{each.name: getattr(asked, each.name) for each in fields(cast(Any, kind))})


def _from_embeddings(faces: FacesArguments, protocol: ProtocolConfig) -> Outcome:
    embedded = read_embedded(faces.model)
    plan = protocol.plan(embedded.index)
    return plan.score({name: embedded.part(rows) for name, rows in plan.parts.items()})


def _from_model(faces: FacesArguments, protocol: ProtocolConfig, world: World) -> Outcome:
    """Embed what the lists name, each image once, and score it."""
    images = open_images(faces.images)
    plan = protocol.plan(FaceIndex(images.names, images.labels(), faces.images))
    rows = np.unique(np.concatenate(list(plan.parts.values())))
    with tempfile.TemporaryDirectory() as own:
        folder = collectives.broadcast_object(own)
        output = Path(faces.keep or f"{folder}/embeddings.npy")
        subset = ImageSubset(images, rows, plan.landmarks, faces.size_for(faces.model))
        embed_images(faces.model, subset, output, faces, world)
        embedded = read_embedded(output)
        outcome = plan.score(_parts(plan, rows, embedded))
        collectives.barrier()  # rank 0's folder goes when all have read it
    return outcome


def _parts(plan: Plan, rows: np.ndarray, embedded: EmbeddedFaces) -> Mapping[str, Tensor]:
    return {name: embedded.part(np.searchsorted(rows, part)) for name, part in plan.parts.items()}


def _look_at(faces: FacesArguments, protocol: ProtocolConfig) -> None:
    """Read what every rank will read, so that a fault is told once."""
    if not faces.images:
        protocol.plan(read_embedded(faces.model).index)
        return
    load_model(faces.model, faces.backbone, faces.embedding_dim)
    images = open_images(faces.images)
    protocol.plan(FaceIndex(images.names, images.labels(), faces.images))


def _tell(faces: FacesArguments, protocol: Any, outcome: Outcome) -> None:
    table = Table(title=faces.protocol, title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("%", justify="right")
    for name, share in outcome.figures.items():
        table.add_row(name, f"{100 * share:.2f}")
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
    if outcome.figures:
        console.print(table)
    for note in outcome.notes:
        console.print(note, highlight=False)
    if faces.pictures:
        print(*draw_outcome(faces, outcome), sep="\n")
    if faces.json:
        about = {"protocol": faces.protocol, "model": faces.model, "images": faces.images, "options": asdict(protocol)}
        if faces.images:
            about["flip"] = faces.flip
        write_json(faces.json, about | {"figures": outcome.figures, "details": outcome.details, "notes": outcome.notes})
