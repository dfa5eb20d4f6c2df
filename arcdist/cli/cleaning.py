"""``arcdist inspect FILE.rec with=MODEL``: what a trained model doubts of a set, found on all ranks."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from arcdist.data.datasets import RecordDataset
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embedding_files import EmbeddingSettings, write_embeddings
from arcdist.evaluate.model_source import load_model
from arcdist.evaluate.report import write_json
from arcdist.prepare.cleaning import write_cleaning
from arcdist.prepare.faces import Faces, read_embeddings
from arcdist.prepare.suspicions import PASSES, find_suspicions
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.precision import PRECISIONS, choose_precision
from arcdist.runtime.progress import shows_bars
from arcdist.runtime.world import RuntimeConfig, World


@dataclass
class CleaningConfig:
    """Which model judges the labels of a .rec, and where what it finds goes."""

    with_: str = field(
        default="",
        metadata={
            "help": "a run's or checkpoint's folder, .safetensors, or insightface's .pt, whose embeddings judge the "
            "labels; or these, a .npy of `arcdist embed`; empty: nothing judges them"
        },
    )
    output: str = field(
        default="", metadata={"help": "of with: folder for the lists, sheets, report; empty: FILE.cleaning"}
    )
    backbone: str = field(default="", metadata={"help": "of with=FILE.pt: the network"})
    embedding_dim: int = field(default=512, metadata={"help": "of with=FILE.pt"})
    batch_size: int = field(default=128, metadata={"help": "of with: images in one forward pass of a rank"})
    precision: str = field(default="fp32", metadata={"help": f"of with: {' | '.join(PRECISIONS)}"})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def validate_cleaning(self, file: str) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.with_ and Path(file).suffix != ".rec":
            raise ConfigError(f"with: judges the labels of a .rec; {file} is none")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: {self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if self.embedding_dim < 1 or self.batch_size < 1:
            raise ConfigError("embedding_dim and batch_size: must be at least 1")
        self.runtime.validate()


def clean(file: str, config: CleaningConfig, world: World) -> None:
    """Write what is suspicious of a .rec into ``config.output``, and print it; see `find_suspicions`."""
    set_up_log(world.rank)
    folder = Path(config.output or f"{file.removesuffix('.rec')}.cleaning")
    collectives.from_rank_0(lambda: _look_at(file, config, folder))
    dataset = RecordDataset(file)
    began = time.monotonic()
    given = Path(config.with_)
    if given.suffix != ".npy":
        given = folder / "embeddings.npy"
        _embed(file, config, given, dataset.image_size[0], world)
    embedded = time.monotonic()
    embeddings = read_embeddings(given, dataset)
    with _bar("comparing", "rows", world.is_first) as (start, advance):
        start(PASSES * len(Faces(embeddings, world.device).rows))
        faces = Faces(embeddings, world.device, progress=advance)
        found = find_suspicions(faces, dataset.labels(), dataset.num_classes)
    report = collectives.from_rank_0(lambda: write_cleaning(dataset, found, folder))
    if world.is_first:
        seconds = {"embedding_s": embedded - began, "comparing_s": time.monotonic() - embedded}
        write_json(folder / "report.json", {"file": file, "with": config.with_, **seconds, **report})
        _tell(folder, report)


def _look_at(file: str, config: CleaningConfig, folder: Path) -> None:
    """Open what every rank will open, so that a fault is told once."""
    with RecordDataset(file) as dataset:
        dataset.labels()
        if Path(config.with_).suffix == ".npy":
            read_embeddings(Path(config.with_), dataset)
        else:
            load_model(config.with_, config.backbone, config.embedding_dim)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; output=FOLDER is another place") from None


def _embed(file: str, config: CleaningConfig, output: Path, image_size: int, world: World) -> None:
    model = load_model(config.with_, config.backbone, config.embedding_dim).to(world.device)
    images = open_images(file)
    settings = EmbeddingSettings(
        batch_size=config.batch_size,
        image_size=image_size,
        precision=choose_precision(config.precision, world.device),
    )
    with _bar("embedding", "images", world.is_first) as (start, advance):
        start(len(images.names))
        write_embeddings(
            model.to(memory_format=torch.channels_last),  # ty: ignore[no-matching-overload]
            images,
            output,
            settings,
            device=world.device,
            progress=advance,
        )


def _tell(folder: Path, report: dict[str, Any]) -> None:
    limits = report["thresholds"]
    elsewhere, stranger = report["elsewhere"], report["stranger"]
    print(
        f"{'likely label noise':<20} {elsewhere + stranger} of {report['judged']} images that can be judged; "
        f"{elsewhere} belong to another identity of the set, {stranger} look like strangers"
        + (f" (under {limits['far']:.2f})" if stranger else "")
    )
    print(f"{'likely one person':<20} {len(report['same'])} pairs of identities, over {limits['near']:.2f}")
    print(f"{'written':<20} {folder}: clean.txt, same.txt, report.json and sheets to look at")


@contextlib.contextmanager
def _bar(what: str, of: str, shown: bool) -> Generator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Show a progress bar; give what sets its total and what advances it."""
    with Progress(
        *(TextColumn(what), BarColumn(bar_width=None), TextColumn("{task.percentage:.0f} %"), TextColumn(f"of {of} ·")),
        *(TimeRemainingColumn(compact=True), TextColumn("left")),
        console=Console(stderr=True),
        transient=True,
        disable=not (shown and shows_bars()),
    ) as bar:
        task = bar.add_task("")
        yield lambda total: bar.update(task, total=total), lambda done: bar.advance(task, done)
