"""What is in a .rec or a .bin: counts and faults."""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.data.datasets import RecordDataset, height_by_width
from arcdist.data.decode import decode
from arcdist.data.evalsets import PairSet, read_bin
from arcdist.errors import DataError
from arcdist.prepare.consistency import Said, contradictions
from arcdist.prepare.contact_sheet import spread

_CHUNK = 256
_SAMPLED_IMAGES = 512
_IMAGES_PER_IDENTITY = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


def inspect(path: "str | os.PathLike[str]", verify: bool = False, workers: int = 4) -> dict[str, Any]:
    """Return what a .rec or .bin holds, ready for JSON.

    Of a .rec: ``layout`` (what the reader took for what), ``records``, ``images``, ``classes``, ``identities`` (classes
    that have an image), ``labels`` (smallest and largest), ``images_per_identity`` (with a histogram). Of a .bin:
    ``pairs``, ``genuine``, ``impostor``, ``images``, ``distinct_images``. Of both: ``image_sizes``, of a few hundred
    images, and ``unreadable_images``, how many of these cannot be decoded.

    Args:
        path: the file.
        verify: read every record and decode every image; then ``image_sizes`` counts all, and in the place of
            ``unreadable_images`` ``faults`` says of each damaged one which record it is and what is wrong, and where a
            property file, an identity record or an id contradicts the records.
        workers: threads that decode.

    Raises:
        DataError: a file that cannot be opened; without ``verify`` also a label that is no class.
    """
    path = Path(path)
    if path.suffix == ".bin":
        return _inspect_bin(path, read_bin(path), verify, workers)
    if path.suffix != ".rec":
        raise DataError(f"{path}: is neither a .rec nor a .bin")
    dataset = RecordDataset(path)
    try:
        return _inspect_rec(dataset, verify, workers)
    finally:
        dataset.close()


def _inspect_rec(dataset: RecordDataset, verify: bool, workers: int) -> dict[str, Any]:
    if verify:
        said = Said.by(dataset)

        def read(sample: int) -> tuple[int, bytes]:
            record = dataset.reader[dataset.key(sample)]
            said.labels[sample], said.ids[sample] = record.first_label, record.id
            return dataset.class_of(sample, record), record.payload

        check = _check(read, dataset.name, range(len(dataset)), workers)
        check.faults += said.faults + _faults_of_property(dataset, check.sizes) + contradictions(dataset, said)
        labels = np.array(check.labels, np.int64)
    else:
        labels = dataset.labels()
        check = _check(dataset.read, dataset.name, spread(len(dataset), _SAMPLED_IMAGES), workers)
    counts = np.bincount(labels, minlength=dataset.num_classes)
    present = counts[counts > 0]
    summary: dict[str, Any] = {
        "file": str(dataset.path),
        "layout": dataset.layout,
        "records": len(dataset.reader),
        "images": len(dataset),
        "classes": dataset.num_classes,
        "identities": len(present),
    }
    if len(labels):
        summary["labels"] = [int(labels.min()), int(labels.max())]
        summary["images_per_identity"] = {
            "min": int(present.min()),
            "median": float(np.median(present)),
            "mean": float(present.mean()),
            "max": int(present.max()),
            "histogram": _histogram(counts),
        }
    return summary | _sizes_and_faults(check, verify)


def _inspect_bin(path: Path, pairs: PairSet, verify: bool, workers: int) -> dict[str, Any]:
    def read(number: int) -> tuple[int, bytes]:
        return number, pairs.images[number]

    images = len(pairs.images)
    samples = range(images) if verify else spread(images, _SAMPLED_IMAGES)
    check = _check(read, lambda number: f"{path.name} image {number}", samples, workers)
    genuine = int(pairs.same.sum())
    return {
        "file": str(path),
        "pairs": len(pairs.same),
        "genuine": genuine,
        "impostor": len(pairs.same) - genuine,
        "images": images,
        "distinct_images": len(set(pairs.images)),
    } | _sizes_and_faults(check, verify)


@dataclass
class _Check:
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "Counter[tuple[int, int]]" = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def _check(
    read: Callable[[int], tuple[int, bytes]], name: Callable[[int], str], samples: Sequence[int], workers: int
) -> _Check:
    """Return labels, sizes and faults of these images, each read and decoded."""

    def chunk(start: int) -> _Check:
        check = _Check()
        for sample in samples[start : start + _CHUNK]:
            try:
                label, payload = read(sample)
                check.labels.append(label)
                height, width, _ = decode(payload, name(sample)).shape
                check.sizes[height, width] += 1
            except DataError as error:
                check.faults.append(str(error))
        return check

    whole = _Check()
    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(chunk, range(0, len(samples), _CHUNK)):
            whole.labels += part.labels
            whole.sizes += part.sizes
            whole.faults += part.faults
    return whole


def _faults_of_property(dataset: RecordDataset, sizes: "Counter[tuple[int, int]]") -> list[str]:
    """Return what the property file says that is not so."""
    stated, listed = dataset.stated, dataset.listed_classes
    faults = []
    if stated and sizes and dataset.image_size not in sizes:
        usual = height_by_width(sizes.most_common(1)[0][0])
        faults.append(f"{stated.path}: says {height_by_width(dataset.image_size)} pixels, which no image has ({usual})")
    if stated and listed not in (None, stated.num_classes):
        faults.append(f"{stated.path}: says {stated.num_classes} classes, but record 0 lists {listed}")
    return faults


def _sizes_and_faults(check: _Check, verify: bool) -> dict[str, Any]:
    sizes = {height_by_width(size): number for size, number in check.sizes.most_common()}
    return {"image_sizes": sizes} | ({"faults": check.faults} if verify else {"unreadable_images": len(check.faults)})


def _histogram(counts: np.ndarray) -> dict[str, int]:
    """Return how many identities have so many images, by ranges."""
    numbers, _ = np.histogram(counts, [*_IMAGES_PER_IDENTITY, np.inf])
    names = []
    for low, high in zip(_IMAGES_PER_IDENTITY, [*_IMAGES_PER_IDENTITY[1:], None]):
        names.append(f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}")
    return {name: int(number) for name, number in zip(names, numbers) if number}
