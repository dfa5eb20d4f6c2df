"""What a set says twice must agree: labels within an identity, ids with keys, record 0 with the index."""

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.datasets import RecordDataset
from arcdist.data.recordio import Record, RecordReader, RecordWriter
from arcdist.data.synthetic import SyntheticConfig, encode, write_record
from arcdist.prepare.inspect import inspect


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """Return a set of 4 identities with 5 images each."""
    write_record(SyntheticConfig(identities=4, images_per_identity=5, image_size=32), tmp_path / "set.rec")
    return tmp_path / "set.rec"


def faults(rec: Path) -> list[str]:
    """Return the faults that ``--verify`` names."""
    return inspect(rec, verify=True, workers=1)["faults"]


def test_a_whole_set_contradicts_nothing(rec: Path) -> None:
    assert faults(rec) == []


def test_the_real_set_contradicts_nothing(data_root: Path) -> None:
    assert faults(data_root / "cfp_small.rec") == []


def test_a_set_without_an_index_contradicts_nothing(rec: Path) -> None:
    rec.with_suffix(".idx").unlink()
    assert faults(rec) == []


def test_every_record_is_read_once(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[int] = Counter()
    read = RecordReader.__getitem__

    def counted(reader: RecordReader, key: int) -> Record:
        reads[key] += 1
        return read(reader, key)

    RecordDataset(rec).close()
    monkeypatch.setattr(RecordReader, "__getitem__", counted)
    RecordDataset(rec).close()
    opening = reads.copy()
    reads.clear()
    assert faults(rec) == []
    assert reads - opening == Counter(range(25))


@pytest.mark.parametrize("label", [0, 3])
def test_another_valid_label_is_found_by_the_identity_record(rec: Path, label: int) -> None:
    with RecordReader(rec) as reader:
        at = reader.offset(7) + 8 + 4
    data = bytearray(rec.read_bytes())
    data[at : at + 4] = struct.pack("<f", label)
    rec.write_bytes(data)
    (fault,) = faults(rec)
    assert f"record 7: label is {label}, but most images of its identity (record 22) have 1" in fault


def test_an_image_that_no_identity_record_lists_is_found(rec: Path) -> None:
    with RecordReader(rec) as reader:
        end = reader.offset(22) + 8 + 24 + 4  # of the images 6 to 10
    data = bytearray(rec.read_bytes())
    assert data[end : end + 4] == struct.pack("<f", 11)
    data[end : end + 4] = struct.pack("<f", 10)
    rec.write_bytes(data)
    (fault,) = faults(rec)
    assert "record 10: is an image that no identity record lists" in fault


def test_an_index_that_leads_to_another_record_is_found_by_the_id(rec: Path) -> None:
    index = rec.with_suffix(".idx")
    table = np.loadtxt(index, np.int64)
    rows = np.flatnonzero(np.isin(table[:, 0], (7, 8)))
    table[rows, 1] = table[rows[::-1], 1]
    np.savetxt(index, table, "%d", "\t")
    found = faults(rec)
    assert ["record 7: its id is 8" in found[0], "record 8: its id is 7" in found[1], len(found)] == [True, True, 2]


def test_a_record_that_is_announced_and_not_there_is_missed(rec: Path) -> None:
    index = rec.with_suffix(".idx")
    index.write_text("".join(line for line in index.read_text().splitlines(True) if not line.startswith("7\t")))
    assert any("1 of the 25 records that record 0 announces are not there" in fault for fault in faults(rec))


def test_identity_records_that_float32_cannot_state_accuse_nobody(tmp_path: Path) -> None:
    """Of a set of over 2**24 images, as its last records are: the spans are off by one, the labels are right."""
    config, last = SyntheticConfig(identities=2, image_size=32), 2**24
    with RecordWriter(tmp_path / "set.rec") as writer:
        writer.write(0, np.array([last + 9, last + 11], np.float32), b"")
        for image in range(8):
            writer.write(last + 1 + image, image // 4, encode(config, image // 4, image))
        for identity in range(2):
            first = last + 1 + 4 * identity
            writer.write(last + 9 + identity, np.array([first, first + 4], np.float32), b"")
    with RecordDataset(tmp_path / "set.rec") as dataset:
        assert (len(dataset), dataset.num_classes) == (8, 2)
    assert faults(tmp_path / "set.rec") == []
