"""``arcdist evaluate EMBEDDINGS analysis=quality images=FOLDER``: norms beside the quality of the images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.picture_files import PictureArguments
from arcdist.data.decode import decode
from arcdist.data.image_lists import open_images
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embedded_faces import is_embedded, read_embedded
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.quality import image_quality, norm_quality
from arcdist.evaluate.report import write_json
from arcdist.runtime.cores import usable_cores

USAGE = "arcdist evaluate EMBEDDINGS analysis=quality images=FOLDER [pictures=FOLDER] [--json PATH]"


@dataclass
class QualityArguments(PictureArguments):
    """What ``analysis=quality`` is told."""

    model: str = field(default="", metadata={"help": "a file of `arcdist embed`"})
    analysis: str = field(default="quality", metadata={"help": "quality"})
    images: str = field(default="", metadata={"help": "what was embedded: a folder, .rec or .bin"})
    json: str = field(default="", metadata={"help": "file for the numbers"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not is_embedded(self.model):
            raise ConfigError(f"{self.model or 'nothing'!r}: is no file of `arcdist embed`; usage: {USAGE}")
        if not self.images:
            raise ConfigError(f"images: is not named; usage: {USAGE}")
        super().validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist evaluate analysis=quality`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, QualityArguments))
        return 0
    config = parse(QualityArguments, arguments, positions=("model",))
    config.validate()
    embedded, images = read_embedded(config.model), open_images(config.images)
    rows = FaceIndex(images.names, images.labels(), config.images).rows(embedded.index.names, embedded.index.source)
    norms = embedded.embeddings.double().norm(dim=1).numpy()

    def quality(row: int) -> tuple[float, float, float]:
        return image_quality(decode(images.read(row), images.where(row)))

    with ThreadPoolExecutor(usable_cores()) as pool:
        qualities = np.array(list(pool.map(quality, rows.tolist())))
    found = norm_quality(norms, qualities)
    for measure, each in found.items():
        print(f"{measure:<10} rank correlation with the norm {each.spearman:+.3f}")
    if config.pictures:
        from arcdist.evaluate.plots_quality import norms_over_quality  # matplotlib takes a second to import

        picture = config.picture("norms")
        try:
            norms_over_quality(picture, norms, qualities, found)
        except OSError as error:
            raise DataError(f"{picture}: cannot be written: {error.strerror}") from None
        print(picture)
    if config.json:
        about = {"embeddings": config.model, "images": len(norms), "mean_norm": float(norms.mean())}
        write_json(config.json, about | {measure: each.as_dict() for measure, each in found.items()})
    return 0
