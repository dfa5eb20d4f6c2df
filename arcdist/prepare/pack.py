"""A folder of identities to a training set in insightface's layout."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from arcdist.data.datasets import MAX_CLASSES, height_by_width
from arcdist.data.decode import decode
from arcdist.data.pairs_txt import identities_of
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.journal import Entry, Journal
from arcdist.prepare.named_set import NamedSetWriter
from arcdist.runtime.ordered import map_in_order
from arcdist.runtime.progress import track

_MAX_SIDE_PX = 4096
_CHUNK = 16
_CHUNKS_AHEAD = 2
_IMAGES = ("kept", "encoded", "resized")
_OF_A_RECORD = ("image_size", "resize", "quality")


@dataclass
class PackConfig:
    """What is packed, and how."""

    images: str = field(metadata={"help": "folder with one folder of images an identity"})
    output: str = field(metadata={"help": "the .rec to write; .idx, .lst and property are written beside it"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels that every image has"})
    resize: bool = field(
        default=False, metadata={"help": "scale images of another size; faces should be aligned instead"}
    )
    quality: int = field(default=95, metadata={"help": "JPEG quality (1 to 100) of images that must be encoded again"})
    exclude: str = field(
        default="", metadata={"help": "a pairs.txt (LFW's format): the people in it are left out; empty: nobody"}
    )
    workers: int = field(default=4, metadata={"help": "threads that read and encode"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for the first value that cannot be right."""
        if Path(self.output).suffix != ".rec":
            raise ConfigError(f"output: {self.output!r}: must end in .rec")
        if not 1 <= self.image_size <= _MAX_SIDE_PX:
            raise ConfigError(f"image_size: {self.image_size}: must be 1 to {_MAX_SIDE_PX}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality: {self.quality}: must be 1 to 100")
        if self.workers < 1:
            raise ConfigError(f"workers: {self.workers}: must be at least 1")


@dataclass
class Skipped:
    """A file that is not in the set, and why."""

    file: str
    reason: str


@dataclass
class PackReport:
    """What `pack` wrote; ``dataclasses.asdict`` gives JSON."""

    output: str
    identities: int
    images: int
    kept: int
    """Images whose bytes were taken as they were."""
    encoded: int
    """Images of the right size that were not JPEG."""
    resized: int
    """Images that were scaled and encoded again."""
    skipped: list[Skipped]
    resumed: int
    """Images that an interrupted pack had written."""
    rec_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Loaded:
    """A file, and the JPEG that is packed of it."""

    folder: Path
    file: Path
    stamp: tuple[int, int]
    """Its bytes and its time of change in ns, before it was read."""
    payload: bytes
    how: str
    """Which of the report's counts an image belongs to, or why the file is skipped."""
    done: "Entry | None" = None
    """What an interrupted pack left of it, if it did."""


def pack(config: PackConfig) -> PackReport:
    """Return what was written: ``OUT.rec``, ``.idx``, ``.lst`` and ``.property``, and ``property`` for a lone set.

    The layout is ``TrainingSetWriter``'s, identities in the order of their folders' names. A line of the ``.lst`` is
    ``key<TAB>label<TAB>path``. JPEG images of the right size are taken byte for byte.

    Files that hold no readable image are skipped and reported, and so is an identity without any. Hidden files are
    passed over.

    Until all is written it lies in the folder ``OUT.rec.partial``. There it stays after a kill or an error, and the
    next call goes on from the first file that is new, changed or gone since; what it writes is, byte for byte, what
    an undisturbed one would have written.

    Raises:
        DataError: no identity, no readable image, an image of another size unless ``resize``, more than `MAX_CLASSES`
            identities, another process that packs into this output, or one that cannot be written.
    """
    config.validate()
    began = time.monotonic()
    root, output = Path(config.images), Path(config.output)
    folders = _identity_folders(root, identities_of(Path(config.exclude)) if config.exclude else set())
    settings = {"images": str(root.resolve()), **{key: getattr(config, key) for key in _OF_A_RECORD}}
    work = output.with_name(f"{output.name}.partial")
    skipped: list[Skipped] = []
    counts: Counter[str] = Counter()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            Journal(work, settings) as journal,
            NamedSetWriter(output, config.image_size, journal.records) as writer,
            ThreadPoolExecutor(config.workers) as pool,
        ):
            tracked = track(folders, "packing", shown=config.progress)
            files = ((folder, file) for folder in tracked for file in _files(folder))
            label, current = 0, None
            for loaded in _resume_then_load(files, root, journal, pool, config):
                if loaded.folder is not current:
                    label, current = writer.set.identities, loaded.folder
                name, done = loaded.file.relative_to(root).as_posix(), loaded.done
                is_image = loaded.how in _IMAGES
                if not is_image:
                    skipped.append(Skipped(name, loaded.how))
                elif done:
                    writer.keep(label, done.end, name)
                    counts.update([loaded.how, "resumed"])
                else:
                    writer.write(label, loaded.payload, name)
                    counts[loaded.how] += 1
                if not done:
                    crc = writer.set.crc if is_image else 0
                    journal.add(Entry(name, *loaded.stamp, loaded.how, writer.set.offset, crc))
            if not writer.set.images:
                raise DataError(f"{root}: no readable image in {len(folders)} folders; {_examples(skipped)}")
    except (DataError, OSError) as error:
        what = str(error) if isinstance(error, DataError) else f"{output}: cannot be written: {error.strerror}"
        kept = f"; what is packed stays in {work.name}, and the same command goes on from there" if counts else ""
        raise DataError(what + kept) from None
    return PackReport(
        output=str(output),
        identities=writer.set.identities,
        images=writer.set.images,
        kept=counts["kept"],
        encoded=counts["encoded"],
        resized=counts["resized"],
        skipped=skipped,
        resumed=counts["resumed"],
        rec_bytes=output.stat().st_size,
        seconds=time.monotonic() - began,
    )


def _identity_folders(root: Path, excluded: set[str]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: is no folder; give one that holds a folder of images for each identity")
    entries = _files(root)
    folders = [entry for entry in entries if entry.is_dir() and entry.name not in excluded]
    if not folders:
        raise DataError(f"{root}: holds no folder of an identity ({len(entries)} files)")
    if len(folders) > MAX_CLASSES:
        raise DataError(
            f"{root}: {len(folders)} identities; the float32 labels of a .rec can tell at most {MAX_CLASSES} apart"
        )
    return folders


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _resume_then_load(
    files: Iterator[tuple[Path, Path]], root: Path, journal: Journal, pool: ThreadPoolExecutor, config: PackConfig
) -> Iterator[_Loaded]:
    """Yield each file in order: as the journal knows it, and from the first that it does not know as it is loaded."""
    for folder, file in files:
        stamp = _stamp(file)
        done = journal.next(file.relative_to(root).as_posix(), *stamp)
        if done and done.how not in _IMAGES and _load(file, config) != (b"", done.how):  # it can be read by now
            journal.forget()
            done = None
        if not done:
            yield from _load_in_order(itertools.chain([(folder, file)], files), pool, config)
            return
        yield _Loaded(folder, file, stamp, b"", done.how, done)


def _load_in_order(
    files: Iterator[tuple[Path, Path]], pool: ThreadPoolExecutor, config: PackConfig
) -> Iterator[_Loaded]:
    """Yield each file with what `_load` says of it, in order; a few chunks a worker are in flight."""

    def load(chunk: list[tuple[Path, Path]]) -> list[_Loaded]:
        return [_Loaded(folder, file, _stamp(file), *_load(file, config)) for folder, file in chunk]

    chunks = iter(lambda: list(itertools.islice(files, _CHUNK)), [])
    for loaded in map_in_order(pool, load, chunks, _CHUNKS_AHEAD * config.workers):
        yield from loaded


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # that it cannot be read is found next
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _load(file: Path, config: PackConfig) -> tuple[bytes, str]:
    """Return the JPEG of an image and which of the report's counts it belongs to, or nothing and why it is skipped."""
    if file.is_dir():
        return b"", "a folder in an identity's folder"
    if any(character in file.name for character in "\t\r\n"):
        return b"", "a tab or line break in the name, which a label list cannot hold"
    try:
        payload = file.read_bytes()
        image = decode(payload, file.name)
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
    except DataError as error:
        return b"", str(error).removeprefix(f"{file.name}: ")
    size = (config.image_size, config.image_size)
    how = "encoded"
    if image.shape[:2] != size:
        if not config.resize:
            raise DataError(
                f"{file}: the image is {height_by_width(image.shape[:2])} pixels, not {height_by_width(size)}; align "
                "the faces first, or scale whole images with resize=true"
            )
        smaller = image.shape[0] > size[0] or image.shape[1] > size[1]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        how = "resized"
    elif _is_plain_jpeg(payload):
        return payload, "kept"
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), config.quality, "RGB", "420"), how


def _is_plain_jpeg(payload: bytes) -> bool:
    """Return whether these bytes are a JPEG that every reader decodes alike; of CMYK some give the inverse."""
    return payload.startswith(b"\xff\xd8\xff") and simplejpeg.decode_jpeg_header(payload)[2] not in ("CMYK", "YCCK")


def _examples(skipped: list[Skipped]) -> str:
    return f"{len(skipped)} files were skipped" + "".join(f"; {skip.file}: {skip.reason}" for skip in skipped[:3])
