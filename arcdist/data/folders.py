"""The images of a folder with one folder an identity."""

import os
from pathlib import Path

import numpy as np

from arcdist.data.decode import check_header
from arcdist.data.image_lists import files_in
from arcdist.errors import DataError


class FolderDataset:
    """Labels and encoded images by sample, 0 .. n − 1, in the order of their paths.

    The identity of an image is the folder that it lies in, at whatever depth (``asia/0017``), and the labels follow the
    identities' names. Hidden files and folders are passed over, and so are files that are no images by their suffix.

    The folder is listed once, by every process: fine for some hundred thousand images; more are faster packed.

    Args:
        root: the folder.

    Raises:
        DataError: no image; an image that lies in no identity's folder; a first image that cannot be read.

    Memory: the names, about 100 bytes an image.
    """

    def __init__(self, root: "str | os.PathLike[str]") -> None:
        self.root = Path(root)
        self._names = files_in(self.root)
        folders = [name.rpartition("/")[0] for name in self._names]
        if "" in folders:
            stray = self._names[folders.index("")]
            raise DataError(f"{self.root / stray}: lies in no identity's folder; one folder an identity is expected")
        self._identities, labels = np.unique(folders, return_inverse=True)
        self._labels = labels.astype(np.int64)
        self.num_classes = len(self._identities)
        self.image_size = check_header(self.read(0)[1], self.name(0))
        self.layout = (
            f"{self.root}: a folder of {len(self)} images in {self.num_classes} identities' folders; "
            f"{self.image_size[0]}×{self.image_size[1]} pixels"
        )

    @property
    def title(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def parts(self) -> "list[FolderDataset]":
        """Itself."""
        return [self]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._names)

    def read(self, sample: int) -> tuple[int, bytes]:
        """Return the label and the encoded image; DataError where the file cannot be read."""
        try:
            return int(self._labels[sample]), (self.root / self._names[sample]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name(sample)}: cannot be read: {error.strerror}") from None

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 ``[n]``."""
        return self._labels

    def identities(self) -> list[str]:
        """Return the folder of each class."""
        return self._identities.tolist()

    def name(self, sample: int) -> str:
        """Return words for messages: the path."""
        return str(self.root / self._names[sample])

    def close(self) -> None:
        """Do nothing: a file is closed as soon as it is read."""
