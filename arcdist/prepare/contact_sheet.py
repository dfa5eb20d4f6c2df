"""A look at the images of a .rec, an identity a row, or at the pairs of a .bin."""

import os
from pathlib import Path

import numpy as np

from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin
from arcdist.prepare.named_set import RecordNames
from arcdist.prepare.sheet import GREEN, RED, captioned_rows, grid, tile


def contact_sheet(path: "str | os.PathLike[str]", count: int = 64) -> np.ndarray:
    """Return a sheet of about ``count`` images, RGB, uint8 ``[H, W, 3]``.

    Of a .rec: a row an identity, spread evenly over the labels, whose label, number of images, first record and name
    (where a label list is beside the file) stand before it. Of a .bin: pairs, side by side, framed green where both
    are the same person and red where not. An image that cannot be decoded is a dark tile.
    """
    path = Path(path)
    if path.suffix == ".bin":
        pairs = read_bin(path)
        tiles = []
        for pair in spread(len(pairs.same), max(1, count // 2)):
            frame = GREEN if pairs.same[pair] else RED
            tiles.append(np.hstack([tile(image, path.name, frame) for image in pairs.images[2 * pair : 2 * pair + 2]]))
        return grid(tiles)
    with RecordDataset(path) as dataset:
        return _identities(dataset, max(1, count))


def spread(length: int, count: int) -> list[int]:
    """Return at most ``count`` of ``length`` positions, evenly apart."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).astype(int)).tolist()


def _identities(dataset: RecordDataset, count: int) -> np.ndarray:
    labels = dataset.labels()
    present, sizes = np.unique(labels, return_counts=True)
    columns = max(1, min(int(sizes.max()), round(count**0.5)))
    names = RecordNames(dataset.path)
    rows = []
    for at in spread(len(present), max(1, count // columns)):
        samples = np.flatnonzero(labels == present[at])
        first = dataset.key(int(samples[0]))
        words = [f"label {present[at]}", f"{len(samples)} image{'s' * (len(samples) > 1)}", f"from record {first}"]
        if names.known:
            words.append(names[first].rpartition("/")[0].rpartition("/")[2])
        shown = samples[spread(len(samples), columns)].tolist()
        rows.append((words, [tile(dataset.read(sample)[1], dataset.name(sample)) for sample in shown]))
    return captioned_rows(rows)
