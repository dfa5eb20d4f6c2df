"""Where the training images come from, as a run's configuration says it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.datasets import RecordDataset, height_by_width
from arcdist.data.decode import decode
from arcdist.data.evalsets import read_bin
from arcdist.data.order import Order
from arcdist.data.selection import SelectConfig, Selection
from arcdist.data.synthetic import SyntheticConfig, check_pairs, read_settings, settings, write_pairs, write_record
from arcdist.data.torch_loader import LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

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
    select: SelectConfig = field(default_factory=SelectConfig)
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
        for key in ("num_classes", "images"):
            if getattr(self, key) < 0:
                raise ConfigError(f"data.{key}: {getattr(self, key)}: must be 0 (whatever the file has) or more")
        self._validate_synthetic()
        self.select.validate()
        self.augment.validate()
        self.loader.validate()
        if self.loader.kind == "dali" and not has_dali():
            raise ConfigError(
                "data.loader.kind: 'dali', but nvidia-dali is not installed: pip install 'arcdist[dali]', or leave "
                "data.loader.kind=auto"
            )

    def _validate_synthetic(self) -> None:
        if self.source != "synthetic":
            return
        if self.synthetic.image_size not in (SyntheticConfig.image_size, self.image_size):
            raise ConfigError(
                f"data.synthetic.image_size: {self.synthetic.image_size}, but data.image_size is {self.image_size}; "
                "the latter alone is enough"
            )
        try:
            self._faces().validate()
        except ConfigError as error:
            raise ConfigError(f"data.synthetic.{error}") from None
        check_pairs(self.held_out_pairs, "data.held_out_pairs")

    def _faces(self) -> SyntheticConfig:
        return replace(self.synthetic, image_size=self.image_size)

    def render(self) -> None:
        """Render what a synthetic source lacks; for one rank, while the others wait.

        Errors: ConfigError for a file that is there and was rendered with other settings; where it does not say with
        which, one of another number of classes or pairs.
        """
        if self.source != "synthetic":
            return
        faces = self._faces()
        if not Path(self.path).exists():
            write_record(faces, self.path)
        else:
            _check_rendered("data.path", self.path, settings(faces), _count_identities)
        if not self.held_out:
            return
        if not Path(self.held_out).exists():
            write_pairs(faces, self.held_out, self.held_out_pairs)
        else:
            _check_rendered("data.held_out", self.held_out, settings(faces, self.held_out_pairs), _count_pairs)

    def open(self) -> "RecordDataset | Selection":
        """Return the images that are trained on.

        Errors: DataError for a missing or damaged file; ConfigError when it is not the one that was configured.
        """
        dataset = RecordDataset(self.path)
        for key, asked, found, says in (
            ("num_classes", self.num_classes, dataset.num_classes, f", as {dataset.classes_source}"),
            ("images", self.images, len(dataset), ""),
        ):
            if asked and asked != found:
                raise ConfigError(
                    f"data.{key}: {asked}, but {self.path} has {found}{says}; is it the right file? "
                    f"data.{key}=0 takes it as it is"
                )
        if dataset.image_size != (self.image_size, self.image_size):
            says = f", as {dataset.stated.path.name} says" if dataset.stated else ""
            raise ConfigError(
                f"data.image_size: {self.image_size}, but the images of {self.path} are "
                f"{height_by_width(dataset.image_size)}{says}"
            )
        if dataset.stated:
            height, width, _ = decode(dataset.read(0)[1], dataset.name(0)).shape
            if (height, width) != dataset.image_size:
                raise DataError(
                    f"{dataset.stated.path}: says {height_by_width(dataset.image_size)} pixels, but the image of "
                    f"{dataset.name(0)} has {height_by_width((height, width))}"
                )
        return Selection(dataset, self.select) if self.select.selects else dataset

    def build_loader(
        self,
        dataset: "RecordDataset | Selection",
        seed: int,
        global_batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
        size_at: "Callable[[int], int] | None" = None,
    ) -> TorchLoader:
        """Return the loader of a rank's batches of a run; arguments and errors are those of `TorchLoader`.

        ``auto`` is DALI where it is installed and decodes on the GPU that trains, so not where images are more than
        flipped: on a CPU it costs about what libjpeg-turbo in our own threads does, and more in the first epoch.
        """
        augment = Augment(self.augment, seed)
        pays = device.type == "cuda" and augment.only_flips and has_dali()
        loader = DaliLoader if self.loader.kind == "dali" or (self.loader.kind == "auto" and pays) else TorchLoader
        return loader(
            *(dataset, Order(len(dataset), seed), augment, global_batch_size, rank, world_size),
            *(dataset.image_size, self.loader, device, size_at),
        )


def _check_rendered(key: str, path: str, asked: dict[str, int], look: Callable[[str], dict[str, int]]) -> None:
    """Raise ConfigError where a file is not the one that would be rendered; ``look`` counts what is in it."""
    told = read_settings(path)
    found = look(path) if told is None else told
    for name, value in found.items():
        if name in asked and value != asked[name]:
            raise ConfigError(
                f"{key}: {path} was rendered with {name}={value}, not {asked[name]}; remove it, or give another {key}"
            )


def _count_identities(path: str) -> dict[str, int]:
    dataset = RecordDataset(path)
    dataset.close()
    return {"identities": dataset.num_classes}


def _count_pairs(path: str) -> dict[str, int]:
    return {"pairs": len(read_bin(path).same)}
