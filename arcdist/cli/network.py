"""The keys of every verb that embeds images, and the embedding itself."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from arcdist.data.image_lists import ImageList
from arcdist.errors import ConfigError
from arcdist.evaluate.embedding_files import EmbeddingSettings, write_embeddings
from arcdist.evaluate.model_source import image_size_of, load_model
from arcdist.runtime.precision import PRECISIONS, choose_precision
from arcdist.runtime.progress import shows_bars
from arcdist.runtime.world import RuntimeConfig, World


@dataclass
class NetworkArguments:
    """Which network, and how it is run."""

    backbone: str = field(default="", metadata={"help": "the network of a .pt; arcdist's own files say it themselves"})
    embedding_dim: int = field(default=512, metadata={"help": "of a .pt"})
    image_size: int = field(
        default=0, metadata={"help": "height and width in pixels; 0: those that the network was trained at"}
    )
    resize: bool = field(default=False, metadata={"help": "scale squares of another size, which are refused otherwise"})
    flip: bool = field(default=True, metadata={"help": "add the embedding of the mirrored image, as the field does"})
    batch_size: int = field(default=128, metadata={"help": "images in one forward pass of a rank"})
    precision: str = field(default="fp32", metadata={"help": " | ".join(PRECISIONS)})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: {self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if self.embedding_dim < 1 or self.batch_size < 1 or (self.image_size and self.image_size < 16):
            raise ConfigError("embedding_dim, image_size and batch_size: must be at least 1, 16 and 1")
        self.runtime.validate()

    def size_for(self, model: str) -> int:
        """Return the height and width in pixels that ``model`` is given."""
        return self.image_size or image_size_of(model)


def embed_images(
    model: str, images: ImageList, output: Path, network: NetworkArguments, world: World
) -> tuple[int, int]:
    """Write the embeddings of a list of images as ``write_embeddings`` does, under a progress bar; return its shape."""
    net = load_model(model, network.backbone, network.embedding_dim).to(world.device)
    settings = EmbeddingSettings(
        batch_size=network.batch_size,
        flip=network.flip,
        image_size=network.size_for(model),
        resize=network.resize,
        precision=choose_precision(network.precision, world.device),
    )
    with _progress_bar(shown=network.progress and world.is_first) as bar:
        task = bar.add_task("", total=len(images.names))
        return write_embeddings(
            net.to(memory_format=torch.channels_last),  # ty: ignore[no-matching-overload]
            images,
            output,
            settings,
            device=world.device,
            progress=lambda finished: bar.advance(task, finished),
        )


def _progress_bar(shown: bool) -> Progress:
    return Progress(
        *(TextColumn("embedding"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("images ·")),
        *(TimeRemainingColumn(compact=True), TextColumn("left")),
        console=Console(stderr=True),
        disable=not (shown and shows_bars()),
    )
