"""What the records of a .rec say twice, and where the two contradict each other."""

import numpy as np

from arcdist.data.datasets import MAX_CLASSES, RecordDataset
from arcdist.errors import DataError


def contradictions(dataset: RecordDataset) -> list[str]:
    """Return where the labels or keys of a set cannot be right, though each record can be read.

    All keys that record 0 announces must be there. The images that an identity record of insightface's layout lists
    must have one label, and where most records state their key as id, all must: what differs has a damaged label, or
    an index that leads to another record. Records that cannot be read are passed over.
    """
    labels = np.full(len(dataset), np.nan)
    ids = np.full(len(dataset), -1, np.float64)
    for sample, key in enumerate(dataset.keys):
        try:
            record = dataset.reader[int(key)]
        except DataError:
            continue
        labels[sample], ids[sample] = record.first_label, record.id
    return _missing(dataset) + _other_ids(dataset, ids) + _other_labels(dataset, labels)


def _missing(dataset: RecordDataset) -> list[str]:
    """Return that there are fewer records than record 0 announces, whose label is exact up to 2**24."""
    if dataset.listed_classes is None:
        return []
    stop = float(np.ravel(dataset.reader[0].label)[1])
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


def _other_labels(dataset: RecordDataset, labels: np.ndarray) -> list[str]:
    faults, listed = [], np.zeros(len(dataset), bool)
    every_list_read = True
    keys = dataset.reader.sorted_keys() if dataset.listed_classes is not None else dataset.keys
    for key in keys[keys > dataset.keys[-1]]:
        try:
            span = np.ravel(dataset.reader[int(key)].label)
        except DataError:  # told elsewhere; what it listed cannot be known
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
