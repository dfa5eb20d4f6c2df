"""``arcdist embed``: images to a file of embeddings and an index of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.network import NetworkArguments, embed_images
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError
from arcdist.evaluate.embedding_files import check_output
from arcdist.evaluate.model_source import load_model
from arcdist.evaluate.report import write_json
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.world import open_world

USAGE = "arcdist embed MODEL IMAGES OUT.npy|OUT.safetensors [key=value …] [--json PATH]"


@dataclass
class _Named:
    model: str = field(
        default="", metadata={"help": "a run's or checkpoint's folder, .safetensors, insightface's .pt, or .onnx"}
    )
    images: str = field(
        default="", metadata={"help": "a .rec, a .bin, an image, or a folder of images and of folders of them"}
    )
    output: str = field(default="", metadata={"help": "the file; its index, a .tsv of that name, stands beside it"})
    json: str = field(default="", metadata={"help": "file for what was written"})


@dataclass
class EmbedArguments(NetworkArguments, _Named):
    """What ``arcdist embed`` is told."""

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("model", "images", "output"):
            if not getattr(self, key):
                raise ConfigError(f"{key}: is not named; usage: {USAGE}")
        check_output(Path(self.output))
        super().validate()


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
    rows, dim = embed_images(config.model, open_images(config.images), Path(config.output), config, world)
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
