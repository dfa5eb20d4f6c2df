"""``arcdist embed``: images to a file of embeddings and an index of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError
from arcdist.evaluate.embedding_files import EmbeddingSettings, check_output, write_embeddings
from arcdist.evaluate.model_source import load_model
from arcdist.evaluate.report import write_json
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.precision import PRECISIONS, choose_precision
from arcdist.runtime.world import RuntimeConfig, open_world

USAGE = "arcdist embed MODEL IMAGES OUT.npy|OUT.safetensors [key=value …] [--json PATH]"


@dataclass
class EmbedArguments:
    """What ``arcdist embed`` is told."""

    model: str = field(
        default="", metadata={"help": "a run's or checkpoint's folder, .safetensors, or insightface's .pt"}
    )
    images: str = field(
        default="", metadata={"help": "a .rec, a .bin, an image, or a folder of images and of folders of them"}
    )
    output: str = field(default="", metadata={"help": "the file; its index, a .tsv of that name, stands beside it"})
    backbone: str = field(default="", metadata={"help": "the network of a .pt; arcdist's own files say it themselves"})
    embedding_dim: int = field(default=512, metadata={"help": "of a .pt"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels that the network takes"})
    resize: bool = field(default=False, metadata={"help": "scale squares of another size, which are refused otherwise"})
    flip: bool = field(default=True, metadata={"help": "add the embedding of the mirrored image, as the field does"})
    batch_size: int = field(default=128, metadata={"help": "images in one forward pass of a rank"})
    precision: str = field(default="fp32", metadata={"help": " | ".join(PRECISIONS)})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})
    json: str = field(default="", metadata={"help": "file for what was written"})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("model", "images", "output"):
            if not getattr(self, key):
                raise ConfigError(f"{key}: is not named; usage: {USAGE}")
        check_output(Path(self.output))
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: {self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if self.embedding_dim < 1 or self.image_size < 16 or self.batch_size < 1:
            raise ConfigError("embedding_dim, image_size and batch_size: must be at least 1, 16 and 1")
        self.runtime.validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist embed`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, EmbedArguments))
        return 0
    config = parse(EmbedArguments, arguments, positions=("model", "images", "output"))
    config.validate()
    world = open_world(config.runtime)
    set_up_log(world.rank)
    collectives.from_rank_0(lambda: _look_at(config))
    images = open_images(config.images)
    model = load_model(config.model, config.backbone, config.embedding_dim).to(world.device)
    settings = EmbeddingSettings(
        batch_size=config.batch_size,
        flip=config.flip,
        image_size=config.image_size,
        resize=config.resize,
        precision=choose_precision(config.precision, world.device),
    )
    with progress_bar(shown=config.progress and world.is_first) as bar:
        task = bar.add_task("", total=len(images.names))
        rows, dim = write_embeddings(
            model.to(memory_format=torch.channels_last),  # ty: ignore[no-matching-overload]
            images,
            Path(config.output),
            settings,
            device=world.device,
            progress=lambda finished: bar.advance(task, finished),
        )
    if world.is_first:
        print(
            f"{config.output}: {rows} embeddings of {dim} numbers; {Path(config.output).with_suffix('.tsv')} names them"
        )
        if config.json:
            written = {"output": config.output, "images": rows, "embedding_dim": dim, "flip": config.flip}
            write_json(config.json, {"model": config.model, "input": config.images, **written})
    return 0


def _look_at(config: EmbedArguments) -> None:
    """Open what every rank will open, so that a fault is told once."""
    open_images(config.images)
    load_model(config.model, config.backbone, config.embedding_dim)


def progress_bar(shown: bool) -> Progress:
    """Return a bar of images that are embedded; empty where it is not shown."""
    return Progress(
        *(TextColumn("embedding"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("images ·")),
        *(TimeRemainingColumn(compact=True), TextColumn("left")),
        console=Console(stderr=True),
        disable=not shown,
    )
