"""What the records of a .rec say twice, and where the two contradict each other."""

from dataclasses import dataclass

import numpy as np

from arcdist.data.datasets import MAX_CLASSES, RecordDataset
from arcdist.errors import DataError


@dataclass(frozen=True, eq=False)
class Said:
    """What the records of a set say, each read once."""

    labels: np.ndarray
    """float64 ``[n]``: the label of each image, NaN for a record that was not, or could not be, read."""
    ids: np.ndarray
    """float64 ``[n]``: its id, or −1."""
    others: dict[int, "np.ndarray | None"]
    """Of each record that is no image, by key: its label as an array, None where it cannot be read."""
    faults: list[str]
    """Why not."""

    @classmethod
    def by(cls, dataset: RecordDataset) -> "Said":
        """Return what the records that are no images say; what the images say is still to be filled in."""
        others: dict[int, np.ndarray | None] = {}
        faults = []
        for key in np.setdiff1d(dataset.reader.sorted_keys(), dataset.keys, assume_unique=True).tolist():
            try:
                others[key] = np.ravel(dataset.reader[key].label)
            except DataError as error:
                others[key] = None
                faults.append(str(error))
        return cls(np.full(len(dataset), np.nan), np.full(len(dataset), -1.0), others, faults)


def contradictions(dataset: RecordDataset, said: Said) -> list[str]:
    """Return where the labels or keys of a set cannot be right, though each record can be read.

    All keys that record 0 announces must be there. The images that an identity record of insightface's layout lists
    must have one label, and where most records state their key as id, all must: what differs has a damaged label, or
    an index that leads to another record. Records that could not be read are passed over, and lists that reach beyond
    key 2**24, which a float32 may miss.
    """
    return _missing(dataset, said) + _other_ids(dataset, said.ids) + _other_labels(dataset, said)


def _missing(dataset: RecordDataset, said: Said) -> list[str]:
    """Return that there are fewer records than record 0 announces, whose label is exact up to 2**24."""
    header = said.others.get(0)
    if dataset.listed_classes is None or header is None:
        return []
    stop = float(header[1])
    keys = dataset.reader.sorted_keys()
    present = int(np.searchsorted(keys, stop))
    if present == stop or stop > MAX_CLASSES:
        return []
    return [f"{dataset.path}: {stop - present:.0f} of the {stop:.0f} records that record 0 announces are not there"]


def _other_ids(dataset: RecordDataset, ids: np.ndarray) -> list[str]:
    other = (ids != dataset.keys) & (ids >= 0)
    if 2 * other.sum() >= (ids >= 0).sum():  # ids that mean something else
        return []
    return [
        f"{dataset.path}: record {dataset.key(sample)}: its id is {ids[sample]:.0f}, where other records have their "
        "key; the index leads to another record, or its header is damaged"
        for sample in np.flatnonzero(other)
    ]


def _other_labels(dataset: RecordDataset, said: Said) -> list[str]:
    faults, listed, labels = [], np.zeros(len(dataset), bool), said.labels
    every_list_read = True
    if dataset.listed_classes is None:  # without a header there are no lists, or their keys are not known
        return []
    for key, span in said.others.items():
        if key <= dataset.keys[-1]:
            continue
        if span is None:  # told elsewhere; what it listed cannot be known
            every_list_read = False
            continue
        if len(span) == 2 and span[1] > MAX_CLASSES:  # stated to the nearest float32, which may be a neighbor's image
            every_list_read = False
            continue
        if len(span) != 2 or not 1 <= span[0] <= span[1] <= dataset.key(-1) + 1:
            faults.append(f"{dataset.path}: identity record {key}: its label {span} is no span of images")
            every_list_read = False
            continue
        first, last = np.searchsorted(dataset.keys, span)
        listed[first:last] = True
        values, counts = np.unique(labels[first:last][~np.isnan(labels[first:last])], return_counts=True)
        if len(values) > 1:
            usual = values[counts.argmax()]
            for sample in first + np.flatnonzero(labels[first:last] != usual):
                faults.append(
                    f"{dataset.path}: record {dataset.key(sample)}: label is {labels[sample]:.9g}, but most images of "
                    f"its identity (record {key}) have {usual:.9g}"
                )
    if every_list_read and listed.any() and not listed.all():
        sample = int(np.argmin(listed))
        faults.append(f"{dataset.path}: record {dataset.key(sample)}: is an image that no identity record lists")
    return faults
