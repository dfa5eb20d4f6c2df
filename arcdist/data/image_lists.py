"""The images of a .rec, a .bin, an image file or a folder of images, as one list."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin
from arcdist.data.image_set import ImageSet
from arcdist.data.selection import Selection
from arcdist.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class ImageList(Protocol):
    """Encoded images, 0 .. n − 1, each with a name; safe to read from threads."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image: its path in the folder, the key of its record, or its number in the .bin."""
        ...

    def labels(self) -> Sequence[str]:
        """Return the label of every image, empty where there is none."""
        ...

    def read(self, image: int) -> bytes:
        """Return the encoded image."""
        ...

    def where(self, image: int) -> str:
        """Return words for messages."""
        ...

    def stamp(self, image: int) -> str:
        """Return what changes when the image does: the size and the time of change of the file that holds it."""
        ...


def open_images(path: "str | os.PathLike[str]") -> ImageList:
    """Return the images of a .rec, of a .bin, of one image file, or of a folder and all folders in it.

    The images of a folder are its files by suffix (``SUFFIXES``; hidden ones are passed over), sorted by path; the
    label of one that lies in a folder of its own is that folder's name, as of one folder an identity.

    Raises:
        DataError: a path that is missing, holds no image or cannot be read; a file name with a tab or a line break.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        return _Files(path, files_in(path))
    if path.suffix == ".rec":
        records = RecordDataset(path)
        return LabeledImages(records, records.keys.tolist(), _stamp(path))
    if path.suffix == ".bin":
        return _PairImages(path)
    return _Files(path.parent, [path.name])


def files_in(root: Path) -> list[str]:
    """Return the images in a folder and all folders in it, as paths within it, sorted.

    Links to folders are followed, but for those that lead back to one that they lie in.

    Raises:
        DataError: a folder that cannot be read, or no image at all.
    """
    found = []
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        inside = Path(folder).relative_to(root)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not name.endswith(".rec.partial") and not _leads_back(root, inside / name)
        ]
        found += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise DataError(f"{root}: holds no image ({', '.join(SUFFIXES)})")
    return sorted(found)


def _leads_back(root: Path, inside: Path) -> bool:
    folder = root / inside
    return folder.is_symlink() and any(folder.samefile(root / above) for above in inside.parents)


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return f"{status.st_size} {status.st_mtime_ns}"


class _Files:
    def __init__(self, root: Path, names: list[str]) -> None:
        for name in names:
            if any(character in name for character in "\t\n\r"):
                raise DataError(f"{root}: {name!r}: a name with a tab or a line break cannot stand in an index")
        self.root, self.names = root, names

    def labels(self) -> list[str]:
        return [name.rpartition("/")[0].rpartition("/")[2] for name in self.names]

    def read(self, image: int) -> bytes:
        try:
            return (self.root / self.names[image]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.where(image)}: cannot be read: {error.strerror}") from None

    def where(self, image: int) -> str:
        return str(self.root / self.names[image])

    def stamp(self, image: int) -> str:
        return _stamp(self.root / self.names[image])


class LabeledImages:
    """The images of a training set as a list.

    Args:
        dataset: whose samples they are, in its order.
        names: one for each.
        stamp: of them all; empty where nothing that is made of them is kept.
    """

    def __init__(self, dataset: ImageSet | Selection, names: Iterable[int], stamp: str = "") -> None:
        self._dataset, self._stamp = dataset, stamp
        self.names = [str(name) for name in names]

    def labels(self) -> list[str]:
        """Return the class of every image."""
        return [str(label) for label in self._dataset.labels().tolist()]

    def read(self, image: int) -> bytes:
        """Return the encoded image."""
        return self._dataset.read(image)[1]

    def where(self, image: int) -> str:
        """Return words for messages."""
        return self._dataset.name(image)

    def stamp(self, image: int) -> str:
        """Return the stamp of them all."""
        return self._stamp


class _PairImages:
    def __init__(self, path: Path) -> None:
        self._pairs, self._path, self._stamp = read_bin(path), path, _stamp(path)
        self.names = [str(image) for image in range(len(self._pairs.images))]

    def labels(self) -> list[str]:
        return [""] * len(self.names)

    def read(self, image: int) -> bytes:
        return self._pairs.images[image]

    def where(self, image: int) -> str:
        return f"{self._path} image {image}"

    def stamp(self, image: int) -> str:
        return self._stamp
