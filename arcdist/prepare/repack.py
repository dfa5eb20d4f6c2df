"""Training sets to another one: merged, split, filtered, by identity; the images stay as they are, byte for byte."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arcdist.data.datasets import MAX_CLASSES, RecordDataset, height_by_width
from arcdist.data.paths import listed
from arcdist.data.selection import SelectConfig
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.named_set import NamedSetWriter, RecordNames
from arcdist.prepare.same_identities import read_same
from arcdist.runtime.progress import track


@dataclass
class RepackConfig(SelectConfig):
    """Which sets, and what is taken of each."""

    images: str = field(default="", metadata={"help": "the .rec, or several with commas; all identities are different"})
    output: str = field(default="", metadata={"help": "the .rec to write; .idx, .lst and property are written beside"})
    same: str = field(
        default="",
        metadata={"help": "of one .rec: file of lines 'label label', two identities that become one; empty: none"},
    )
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    @property
    def sources(self) -> list[Path]:
        """The sets, in order."""
        return [Path(path) for path in self.images.split(",") if path]

    def validate(self) -> None:
        """Raise ``ConfigError`` for the first value that cannot be right."""
        try:
            super().validate()
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix("data.select.")) from None
        if Path(self.output).suffix != ".rec":
            raise ConfigError(f"output: {self.output!r}: must end in .rec")
        if not self.sources or any(path.suffix != ".rec" for path in self.sources):
            raise ConfigError(f"images: {self.images!r}: must be .rec files, with commas between them")
        if len({path.resolve() for path in self.sources}) < len(self.sources):
            raise ConfigError(f"images: {self.images!r}: has a set twice, and its people would be two each")
        if any(path.resolve() == Path(self.output).resolve() for path in self.sources):
            raise ConfigError(f"output: {self.output}: is read, too; give another name")
        if len(listed(self.clean_list)) > 1:
            raise ConfigError(f"clean_list: {self.clean_list}: must be one file; of several sets filter each first")
        for key in ("classes", "clean_list", "same"):
            if getattr(self, key) and len(self.sources) > 1:
                raise ConfigError(f"{key}: labels and keys are those of one set; filter first, and merge what results")


@dataclass
class RepackReport:
    """What `repack` wrote; ``dataclasses.asdict`` gives JSON."""

    output: str
    sources: list[str]
    identities: int
    images: int
    left_out: int
    """Images of the sources that were not taken."""
    rec_bytes: int
    seconds: float


def repack(config: RepackConfig) -> RepackReport:
    """Return what was written: a set in insightface's layout with its label list, or nothing after an error.

    Identities are numbered anew: set by set, in the order of their labels; images keep their order within one. Records
    are read and written one by one. The third column of the ``.lst`` is the name in the source's ``.lst``, or
    ``FILE.rec/KEY`` where it has none; of identities that ``same`` joins all are in the folder of the first image.

    Raises:
        ConfigError: see ``RepackConfig.validate``.
        DataError: what cannot be read or written, sets of different image sizes, nothing that is left, more than
            `MAX_CLASSES` identities.

    Memory: about 50 bytes an image of the largest set, and 16 a line of its ``.lst``.
    """
    config.validate()
    began = time.monotonic()
    output = Path(config.output)
    sets = [RecordDataset(path) for path in config.sources]
    sizes = {height_by_width(each.image_size): each.path for each in sets}
    if len(sizes) > 1:
        told = ", ".join(f"{path.name} {size}" for size, path in sizes.items())
        raise DataError(f"{config.images}: the images have different sizes ({told}); one set has one")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with NamedSetWriter(output, sets[0].image_size[0]) as writer:
            for each in sets:
                _copy(each, config, writer)
            if not writer.set.images:
                raise DataError(f"{config.images}: nothing is left of {sum(map(len, sets))} images")
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from None
    total = sum(map(len, sets))
    for each in sets:
        each.close()
    return RepackReport(
        output=str(output),
        sources=[str(path) for path in config.sources],
        identities=writer.set.identities,
        images=writer.set.images,
        left_out=total - writer.set.images,
        rec_bytes=output.stat().st_size,
        seconds=time.monotonic() - began,
    )


def _copy(source: RecordDataset, config: RepackConfig, writer: NamedSetWriter) -> None:
    samples, labels = _chosen(source, config)
    if writer.set.identities + len(np.unique(labels)) > MAX_CLASSES:
        raise DataError(
            f"{source.path}: over {MAX_CLASSES} identities; the float32 labels of a .rec tell no more apart"
        )
    names, label, last, folder = RecordNames(source.path), writer.set.identities - 1, -1, ""
    for sample, old in track(zip(samples, labels), f"copying {source.path.name}", len(samples), config.progress):
        name = names[source.key(int(sample))]
        if old != last:
            label, last, folder = label + 1, old, name.rpartition("/")[0]
        elif config.same and name.rpartition("/")[0] != folder:
            name = f"{folder}/{name.replace('/', '_')}"  # a folder is a person
        writer.write(label, source.read(int(sample))[1], name)


def _chosen(source: RecordDataset, config: RepackConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples that are taken, those of an identity adjacent, and their labels in the source."""
    labels = source.labels()
    if config.same:  # first of all, so that a person is counted, and put on a side, as one
        labels = read_same(config.same, source.num_classes)[labels]
    samples = np.flatnonzero(config.keep(source, labels))
    samples = samples[np.argsort(labels[samples], kind="stable")]
    return samples, labels[samples]
