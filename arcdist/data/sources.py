"""Where the training images come from, as a run's configuration says it."""

from dataclasses import dataclass, field
from pathlib import Path

from arcdist.data.augment import AugmentConfig
from arcdist.data.datasets import RecordDataset
from arcdist.data.synthetic import SyntheticConfig, write_pairs, write_record
from arcdist.data.torch_loader import LoaderConfig
from arcdist.errors import ConfigError

SOURCES = ("recordio", "synthetic")


@dataclass
class DataConfig:
    """The training data and how it is read."""

    source: str = field(default="recordio", metadata={"help": "recordio | synthetic (rendered where path is missing)"})
    path: str = field(default="", metadata={"help": "the .rec file, with its .idx beside it"})
    num_classes: int = field(default=0, metadata={"help": "classes that the file must have; 0: whatever it has"})
    images: int = field(default=0, metadata={"help": "images that the file must have; 0: whatever it has"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels"})
    held_out: str = field(default="", metadata={"help": "of a synthetic source: the .bin of other identities"})
    held_out_pairs: int = field(default=1000, metadata={"help": "of a synthetic source: pairs in held_out"})
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.source not in SOURCES:
            raise ConfigError(f"data.source: {self.source!r}: must be one of {', '.join(SOURCES)}")
        if not self.path:
            raise ConfigError("data.path: not set; give the .rec file: data.path=FOLDER/train.rec")
        if self.image_size < 16:
            raise ConfigError(f"data.image_size: {self.image_size}: must be at least 16")
        self.synthetic.validate()
        self.augment.validate()
        self.loader.validate()

    def render(self) -> None:
        """Render what a synthetic source lacks; for one rank, while the others wait."""
        if self.source != "synthetic":
            return
        if not Path(self.path).exists():
            write_record(self.synthetic, self.path)
        if self.held_out and not Path(self.held_out).exists():
            write_pairs(self.synthetic, self.held_out, self.held_out_pairs)

    def open(self) -> RecordDataset:
        """Return the images.

        Errors: DataError for a missing or damaged file; ConfigError when it is not the one that was configured.
        """
        dataset = RecordDataset(self.path)
        for key, asked, found in (
            ("num_classes", self.num_classes, dataset.num_classes),
            ("images", self.images, len(dataset)),
        ):
            if asked and asked != found:
                raise ConfigError(
                    f"data.{key}: {asked}, but {self.path} has {found}; is it the right file? "
                    f"data.{key}=0 takes it as it is"
                )
        if dataset.image_size != (self.image_size, self.image_size):
            height, width = dataset.image_size
            raise ConfigError(f"data.image_size: {self.image_size}, but the images of {self.path} are {height}×{width}")
        return dataset
