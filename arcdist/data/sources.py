"""Where the training images come from, as a run's configuration says it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.balanced_order import BalancedOrder
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.datasets import RecordDataset, height_by_width
from arcdist.data.decode import decode
from arcdist.data.evalsets import read_bin
from arcdist.data.folders import FolderDataset
from arcdist.data.identities import read_identities
from arcdist.data.image_set import ImageSet
from arcdist.data.joined import JoinedSet
from arcdist.data.local_cache import LocalCache, LocalCacheConfig
from arcdist.data.mixed_order import MixedOrder
from arcdist.data.order import Order
from arcdist.data.paths import check_paths, listed
from arcdist.data.selection import SelectConfig, Selection
from arcdist.data.synthetic import SyntheticConfig, check_pairs, read_settings, settings, write_pairs, write_record
from arcdist.data.torch_loader import LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

SOURCES = ("recordio", "synthetic")
_MOST_VISITS = 1_000_000  # of an epoch to an image; positions stay far below 2**63


@dataclass
class DataConfig:
    """The training data and how it is read."""

    source: str = field(default="recordio", metadata={"help": "recordio | synthetic (rendered where path is missing)"})
    path: Any = field(
        default="",
        metadata={
            "help": "a .rec with its .idx beside, or a folder with a folder an identity; or a list: [a.rec,b.rec]"
        },
    )
    weights: list[float] = field(
        default_factory=list, metadata={"help": "visits of an epoch to each image, one for each path; empty: one visit"}
    )
    identities: list[str] = field(
        default_factory=list,
        metadata={"help": "for each path a list of its classes' names; empty: nobody is in two of the paths"},
    )
    same_labels: bool = field(default=False, metadata={"help": "a label is the same identity in every path"})
    per_identity: int = field(
        default=0, metadata={"help": "images of one identity that follow each other in a batch; 0: all are shuffled"}
    )
    num_classes: int = field(default=0, metadata={"help": "classes that there must be; 0: as many as there are"})
    images: int = field(default=0, metadata={"help": "images that there must be; 0: as many as there are"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels"})
    held_out: str = field(default="", metadata={"help": "of a synthetic source: the .bin of other identities"})
    held_out_pairs: int = field(default=1000, metadata={"help": "of a synthetic source: pairs in held_out"})
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    cache: LocalCacheConfig = field(default_factory=LocalCacheConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.source not in SOURCES:
            raise ConfigError(f"data.source: {self.source!r}: must be one of {', '.join(SOURCES)}")
        check_paths("data.path", self.path)
        if not self.path or not all(self.paths):
            raise ConfigError("data.path: not set; give the .rec file: data.path=FOLDER/train.rec")
        if self.image_size < 16:
            raise ConfigError(f"data.image_size: {self.image_size}: must be at least 16")
        for key in ("num_classes", "images"):
            if getattr(self, key) < 0:
                raise ConfigError(f"data.{key}: {getattr(self, key)}: must be 0 (whatever the file has) or more")
        self._validate_several()
        self._validate_synthetic()
        self.cache.validate()
        self.select.validate()
        self.augment.validate()
        self.loader.validate()
        if self.loader.kind == "dali" and not has_dali():
            raise ConfigError(
                "data.loader.kind: 'dali', but nvidia-dali is not installed: pip install 'arcdist[dali]', or leave "
                "data.loader.kind=auto"
            )

    @property
    def paths(self) -> list[str]:
        """The files and folders that are trained on."""
        return listed(self.path)

    def _validate_several(self) -> None:
        for key in ("weights", "identities"):
            given = getattr(self, key)
            if given and len(given) != len(self.paths):
                raise ConfigError(
                    f"data.{key}: {len(given)} for {len(self.paths)} of data.path; give one for each, or none"
                )
        if len({Path(path).resolve() for path in self.paths}) < len(self.paths):
            raise ConfigError(
                f"data.path: {self.paths}: has a set twice, and its people would be two each; data.weights says how "
                "often a set is visited"
            )
        if not all(0 < weight <= _MOST_VISITS for weight in self.weights):
            raise ConfigError(f"data.weights: {list(self.weights)}: must be above 0 and at most {_MOST_VISITS:,} each")
        if self.identities and self.same_labels:
            raise ConfigError("data.same_labels: true, but data.identities says who is who; leave one of them out")
        if self.per_identity < 0:
            raise ConfigError(f"data.per_identity: {self.per_identity}: must be 0 (all are shuffled) or more")
        if self.per_identity and self.weights:
            raise ConfigError(
                "data.per_identity: takes every identity in turn, so data.weights has no meaning beside it"
            )

    def _validate_synthetic(self) -> None:
        if self.source != "synthetic":
            return
        if len(self.paths) > 1:
            raise ConfigError("data.path: a synthetic source renders one file; data.source=recordio reads several")
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
        faces, (path,) = self._faces(), self.paths
        if not Path(path).exists():
            write_record(faces, path)
        else:
            _check_rendered("data.path", path, settings(faces), _count_identities)
        if not self.held_out:
            return
        if not Path(self.held_out).exists():
            write_pairs(faces, self.held_out, self.held_out_pairs)
        else:
            _check_rendered("data.held_out", self.held_out, settings(faces, self.held_out_pairs), _count_pairs)

    def open(self) -> "ImageSet | Selection":
        """Return the images that are trained on.

        Errors: DataError for a missing or damaged file; ConfigError when it is not the one that was configured.
        """
        cache = self.cache.build()
        parts = [self._open_part(path, cache) for path in self.paths]
        if cache:
            cache.fill()
        joins = len(parts) > 1 or self.identities
        dataset = JoinedSet(parts, self._names(parts), self.same_labels) if joins else parts[0]
        for key, asked, found in (
            ("num_classes", self.num_classes, dataset.num_classes),
            ("images", self.images, len(dataset)),
        ):
            if asked and asked != found:
                by = isinstance(dataset, RecordDataset) and key == "num_classes"
                says = f", as {dataset.classes_source}" if by else ""
                raise ConfigError(
                    f"data.{key}: {asked}, but {dataset.title} has {found}{says}; is it the right file? "
                    f"data.{key}=0 takes it as it is"
                )
        return Selection(dataset, self.select) if self.select.selects else dataset

    def _open_part(self, path: str, cache: "LocalCache | None") -> ImageSet:
        """Return the images of one path, whose size is checked."""
        dataset = FolderDataset(path) if Path(path).is_dir() else RecordDataset(path, cache)
        stated = dataset.stated if isinstance(dataset, RecordDataset) else None
        if dataset.image_size != (self.image_size, self.image_size):
            says = f", as {stated.path.name} says" if stated else ""
            raise ConfigError(
                f"data.image_size: {self.image_size}, but the images of {path} are "
                f"{height_by_width(dataset.image_size)}{says}"
            )
        if stated:
            height, width, _ = decode(dataset.read(0)[1], dataset.name(0)).shape
            if (height, width) != dataset.image_size:
                raise DataError(
                    f"{stated.path}: says {height_by_width(dataset.image_size)} pixels, but the image of "
                    f"{dataset.name(0)} has {height_by_width((height, width))}"
                )
        return dataset

    def _names(self, parts: "list[ImageSet]") -> list[list[str]]:
        """Return the names of each part's classes where they were asked for: a list's, or a folder's own."""
        names = []
        for part, path in zip(parts, self.identities):
            if path:
                names.append(read_identities(path, part.num_classes))
            elif isinstance(part, FolderDataset):
                names.append(part.identities())
            else:
                raise ConfigError(f"data.identities: '' for {part.title}; only a folder names its classes itself")
        return names

    def build_order(self, dataset: "ImageSet | Selection", seed: int) -> Order:
        """Return which sample of the set is the n-th of a run."""
        if self.per_identity:
            return BalancedOrder(dataset.labels(), self.per_identity, seed)
        if self.weights:
            selected = isinstance(dataset, Selection)
            sizes = dataset.part_sizes if selected else [len(part) for part in dataset.parts]
            return MixedOrder(sizes, self.weights, seed)
        return Order(len(dataset), seed)

    def build_loader(
        self,
        dataset: "ImageSet | Selection",
        order: Order,
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
        augment = Augment(self.augment, order.seed)
        pays = device.type == "cuda" and augment.only_flips and self.loader.workers_are == "threads" and has_dali()
        loader = DaliLoader if self.loader.kind == "dali" or (self.loader.kind == "auto" and pays) else TorchLoader
        return loader(
            *(dataset, order, augment, global_batch_size, rank, world_size),
            *(dataset.image_size, self.loader, device, size_at),
        )


def _check_rendered(key: str, path: str, asked: dict[str, int], look: Callable[[str], dict[str, int]]) -> None:
    """Raise ConfigError where a file is not the one that would be rendered; ``look`` counts what is in it."""
    told = read_settings(path)
    found = look(path) if told is None else {name: told.get(name, 0) for name in asked}
    for name, value in found.items():
        if value != asked[name]:
            raise ConfigError(
                f"{key}: {path} was rendered with {name}={value}, not {asked[name]}; remove it, or give another {key}"
            )


def _count_identities(path: str) -> dict[str, int]:
    dataset = RecordDataset(path)
    dataset.close()
    return {"identities": dataset.num_classes}


def _count_pairs(path: str) -> dict[str, int]:
    return {"pairs": len(read_bin(path).same)}
