"""A sheet of a training set's images, each beside what augmentation makes of it."""

import os

import numpy as np

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode

_VISITS = 8
_GAP_PX = 4


def augment_sheet(path: "str | os.PathLike[str]", config: AugmentConfig, count: int = 64, seed: int = 0) -> np.ndarray:
    """Return a sheet of about ``count`` images, RGB, uint8 ``[H, W, 3]``.

    In each row stand an image as it is stored and what is trained on at eight visits of it.

    Raises:
        DataError: a file that cannot be read, or an image on the sheet that is damaged.
    """
    augment = Augment(config, seed)
    rows = max(1, count // (1 + _VISITS))
    with RecordDataset(path) as dataset:
        samples = np.linspace(0, len(dataset) - 1, min(rows, len(dataset))).astype(int).tolist()
        images = [decode(dataset.read(sample)[1], dataset.name(sample), dataset.image_size) for sample in samples]
    drawn = augment.draw(np.arange(len(images) * _VISITS)).reshape(len(images), _VISITS)
    return np.vstack([
        np.hstack([_framed(image), *(_framed(augment.apply(image, parameters)) for parameters in visits)])
        for image, visits in zip(images, drawn)
    ])  # fmt: skip


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((_GAP_PX, _GAP_PX), (_GAP_PX, _GAP_PX), (0, 0)), constant_values=255)
