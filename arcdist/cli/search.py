"""``arcdist search``: whose faces of a gallery are nearest to these."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.network import NetworkArguments, embed_images
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embedded_faces import EmbeddedFaces, is_embedded, read_embedded
from arcdist.evaluate.faiss_index import FaissIndex
from arcdist.evaluate.identification import search
from arcdist.evaluate.report import write_json
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.world import World, open_world

USAGE = "arcdist search GALLERY QUERIES [model=MODEL] [count=N] [threshold=COSINE] [--json PATH]"


@dataclass
class _Named:
    gallery: str = field(default="", metadata={"help": "a file of `arcdist embed`"})
    queries: str = field(default="", metadata={"help": "another one; or images, aligned faces, and model="})
    model: str = field(default="", metadata={"help": "of images: the network that the gallery was embedded by"})
    count: int = field(default=5, metadata={"help": "nearest faces that are told of each query"})
    threshold: float = field(default=-1.0, metadata={"help": "cosine that a face must reach to be told"})
    index: str = field(
        default="",
        metadata={"help": "file of faiss, for approximate search of a large gallery; made if missing"},
    )
    json: str = field(default="", metadata={"help": "file for the answers"})


@dataclass
class SearchArguments(NetworkArguments, _Named):
    """What ``arcdist search`` is told."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("gallery", "queries"):
            if not getattr(self, key):
                raise ConfigError(f"{key}: is not named; usage: {USAGE}")
        if is_embedded(self.queries) == bool(self.model):
            raise ConfigError(
                f"model: {self.queries} holds embeddings and needs none"
                if self.model
                else f"model: {self.queries} is no file of `arcdist embed`, so it is taken for images: give model="
            )
        if self.count < 1 or not -1 <= self.threshold <= 1:
            raise ConfigError(f"count: {self.count}, threshold: {self.threshold}: must be at least 1 and in [-1, 1]")
        super().validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist search`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, SearchArguments))
        return 0
    config = parse(SearchArguments, arguments, positions=("gallery", "queries"))
    config.validate()
    world = open_world(config.runtime)
    set_up_log(world.rank)
    collectives.from_rank_0(lambda: read_embedded(config.gallery))
    gallery = read_embedded(config.gallery)
    with tempfile.TemporaryDirectory() as own:
        queries = _queries(config, Path(collectives.broadcast_object(own)), world)
        collectives.barrier()  # rank 0's folder goes when all have read it
    dims = queries.embeddings.shape[1], gallery.embeddings.shape[1]
    if dims[0] != dims[1]:
        raise DataError(f"queries of {dims[0]} dimensions, a gallery of {dims[1]}; are both embeddings of one network?")
    cosines, rows = _nearest(config, queries.embeddings, gallery.embeddings, world)
    if world.is_first:
        _tell(config, _answers(config, queries, gallery, cosines, rows))
    return 0


def _queries(config: SearchArguments, folder: Path, world: World) -> EmbeddedFaces:
    if not config.model:
        return read_embedded(config.queries)
    embed_images(config.model, open_images(config.queries), folder / "queries.npy", config, world)
    return read_embedded(folder / "queries.npy")


def _nearest(config: SearchArguments, queries: Tensor, gallery: Tensor, world: World) -> tuple[Tensor, Tensor]:
    count = min(config.count, len(gallery))
    if not config.index:
        return search(queries.to(world.device), gallery, count)
    return collectives.from_rank_0(lambda: FaissIndex(gallery, config.index).search(queries, count))


def _answers(
    config: SearchArguments, queries: EmbeddedFaces, gallery: EmbeddedFaces, cosines: Tensor, rows: Tensor
) -> list[dict[str, Any]]:
    names, labels = gallery.index.names, gallery.index.labels
    return [
        {
            "query": query,
            "matches": [
                {"name": names[row], "label": labels[row], "cosine": round(cosine, 6)}
                for cosine, row in zip(of_cosines, of_rows)
                if row >= 0 and cosine >= config.threshold
            ],
        }
        for query, of_cosines, of_rows in zip(queries.index.names, cosines.tolist(), rows.tolist())
    ]


def _tell(config: SearchArguments, answers: list[dict[str, Any]]) -> None:
    table = Table(title=f"The nearest of {config.gallery}", title_justify="left", title_style="bold")
    for heading in ("query", "face", "label"):
        table.add_column(heading)
    table.add_column("cosine", justify="right")
    for answer in answers:
        for place, match in enumerate(answer["matches"]):
            table.add_row("" if place else answer["query"], match["name"], match["label"], f"{match['cosine']:.3f}")
        if not answer["matches"]:
            table.add_row(answer["query"], "nobody", "", f"< {config.threshold:.3f}")
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)
    if config.json:
        about = {key: getattr(config, key) for key in ("gallery", "queries", "model", "threshold", "index")}
        write_json(config.json, about | {"exact": not config.index, "answers": answers})
