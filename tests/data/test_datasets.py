"""The images and labels of a .rec are found in every layout that the field's tools write."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.datasets import RecordDataset
from arcdist.data.recordio import RecordReader, RecordWriter
from arcdist.errors import DataError

PEOPLE = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def write(path: Path, labels: list, classes: int, header_label: "list[float] | None" = None) -> Path:
    """Write images without content in insightface's layout, and their property file."""
    with RecordWriter(path) as writer:
        for key, label in enumerate(labels, 1):
            writer.write(key, label, f"image {key}".encode())
        writer.write(0, header_label or [len(labels) + 1, len(labels) + 1 + classes], b"")
        for key in range(classes):
            writer.write(len(labels) + 1 + key, [1, 2], b"")
    path.with_suffix(".property").write_text(f"{classes},112,112\n")
    return path


@pytest.mark.parametrize("name", ["b_multilabel", "b_header_first", "b_header_last"])
def test_a_header_and_identity_records_are_no_images(data_root: Path, name: str) -> None:
    dataset = RecordDataset(data_root / f"formats/{name}.rec")
    assert dataset.labels().tolist() == PEOPLE
    assert [dataset.read(sample)[0] for sample in range(len(dataset))] == PEOPLE
    assert (dataset.num_classes, dataset.image_size) == (4, (112, 112))
    assert "record 0 is insightface's header" in dataset.layout


@pytest.mark.parametrize("name", ["b_header_first", "b_header_last", "e_shuffled", "e_shuffled_sequential"])
def test_every_layout_holds_the_same_thirteen_images(data_root: Path, name: str) -> None:
    def pictures(layout: str) -> set[tuple[int, str]]:
        dataset = RecordDataset(data_root / f"formats/{layout}.rec")
        read = [dataset.read(sample) for sample in range(len(dataset))]
        return {(label, hashlib.sha256(payload).hexdigest()) for label, payload in read}

    assert len(pictures(name)) == 13
    assert pictures(name) == pictures("b_multilabel")


@pytest.mark.parametrize(
    ("name", "classes", "says"),
    [
        (
            "a_im2rec_noheader",
            4,
            "record 0 is no header: all 12 records of the index are images; 4 classes as the largest",
        ),
        ("b_three_labels", 4, "record 0 is no header"),
        ("b_header_first", 4, r"header \(first in the file\).*4 classes as the header says"),
        ("b_header_last", 4, r"header \(not first in the file\)"),
        ("e_shuffled", 4, "4 classes as e_shuffled.property says"),
        ("e_shuffled_sequential", 4, "no index, so it was scanned.*13 images, 0 header"),
        ("f_sequential", 6, "no index.*6 classes as the largest label says"),
        ("h_sparse_index", 43, "all 5 records"),
    ],
)
def test_the_layout_is_said_in_a_sentence(data_root: Path, name: str, classes: int, says: str) -> None:
    dataset = RecordDataset(data_root / f"formats/{name}.rec")
    assert dataset.num_classes == classes
    assert re.search(says, dataset.layout), dataset.layout


def test_a_real_set_has_the_labels_of_its_list(data_root: Path) -> None:
    dataset = RecordDataset(data_root / "lfw_train.rec")
    listed = [line.split("\t") for line in (data_root / "lfw_train.lst").read_text().splitlines()]
    assert dataset.labels().tolist() == [int(label) for _, label, _ in listed]
    assert [dataset.key(sample) for sample in range(len(dataset))] == [int(key) for key, _, _ in listed]
    assert dataset.num_classes == 1343


def test_sparse_keys_are_in_order_with_their_own_labels(data_root: Path) -> None:
    dataset = RecordDataset(data_root / "formats/h_sparse_index.rec")
    assert [dataset.key(sample) for sample in range(5)] == [0, 3, 7, 42, 1000000]
    assert dataset.labels().tolist() == [0, 3, 7, 42, 27]


def test_insightfaces_layout_is_found_without_its_index(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "lost.rec").write_bytes((data_root / "formats/b_header_last.rec").read_bytes())
    dataset = RecordDataset(tmp_path / "lost.rec")
    assert dataset.labels().tolist() == PEOPLE
    assert "5 header and identity records" in dataset.layout


def test_an_image_of_no_bytes_is_an_image_without_an_index_too(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "scanned.rec") as writer:
        writer.write(0, [2, 2], b"")
        writer.write(1, 0, b"")
    (tmp_path / "scanned.idx").unlink()
    (tmp_path / "scanned.property").write_text("1,112,112")
    assert RecordDataset(tmp_path / "scanned.rec").keys.tolist() == [1]


def test_the_folders_property_serves_a_file_without_its_own(tmp_path: Path) -> None:
    write(tmp_path / "train.rec", [0, 1], 2).with_suffix(".property").rename(tmp_path / "property")
    (tmp_path / "property").write_text("7,96,112\n2\nshuffled\n")
    dataset = RecordDataset(tmp_path / "train.rec")
    assert (dataset.num_classes, dataset.image_size) == (7, (96, 112))
    assert "7 classes as property says (the header lists 2)" in dataset.layout


@pytest.mark.parametrize("text", ["", "4", "4,112", "4,112,112,3", "0,112,112", "four,112,112", "\xff"])
def test_a_property_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "train.rec", [0, 1], 2)
    path.with_suffix(".property").write_text(text, encoding="latin1")
    with pytest.raises(DataError, match=r"train.property: the first line is .* not 'classes,height,width'"):
        RecordDataset(path)


def test_a_property_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "train.rec", [0, 1], 2)

    def fails(path: Path, **_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_text", fails)
    with pytest.raises(DataError, match=r"train\.property: cannot be read: Input/output error"):
        RecordDataset(path)


@pytest.mark.parametrize("label", [2, -1, 0.5, float("nan"), float("inf"), [2.0, 0.0]])
def test_a_label_that_is_no_class_is_named_with_its_record(tmp_path: Path, label: object) -> None:
    dataset = RecordDataset(write(tmp_path / "train.rec", [0, 1, label], 2))
    for touch in (dataset.labels, lambda: dataset.read(2)):
        with pytest.raises(DataError, match=r"train.rec: record 3: label is .*, which is no class of 0\.\.1"):
            touch()
    assert dataset.read(1) == (1, b"image 2")
    assert dataset.name(2) == "train.rec record 3"


def test_more_classes_than_float32_tells_apart_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.rec", [0], 1)
    path.with_suffix(".property").write_text("16777217,112,112\n")
    with pytest.raises(DataError, match=r"16777217 classes as train.property says.*at most 16777216"):
        RecordDataset(path)


def test_labels_above_two_to_the_24_are_refused(data_root: Path, tmp_path: Path) -> None:
    for ending in (".rec", ".idx"):
        (tmp_path / f"big{ending}").write_bytes((data_root / f"formats/g_big_labels{ending}").read_bytes())
    (tmp_path / "big.property").write_text("16777216,112,112\n")
    with pytest.raises(DataError, match=r"record 1: label is 16777216"):
        RecordDataset(tmp_path / "big.rec").labels()


@pytest.mark.parametrize("stated", [16_777_218, 16_777_220])
def test_a_header_that_float32_rounded_is_seen_through(tmp_path: Path, stated: int) -> None:
    with RecordWriter(tmp_path / "large.rec") as writer:
        for key in range(16_777_210, 16_777_219):
            writer.write(key, 0, b"image")
        writer.write(0, [stated, stated], b"")
        writer.write(16_777_219, [1, 2], b"")
    (tmp_path / "large.property").write_text("1,112,112")
    dataset = RecordDataset(tmp_path / "large.rec")
    assert dataset.keys.tolist() == list(range(16_777_210, 16_777_219))
    assert dataset.listed_classes == 1


@pytest.mark.parametrize("label", [[0.0, 5.0], [5.0, 4.0], [1.5, 2.0], [float("nan"), 2.0], [2.0, float("inf")]])
def test_a_header_that_names_no_range_is_refused(tmp_path: Path, label: list[float]) -> None:
    with pytest.raises(DataError, match="record 0 has flag 2, no payload and label"):
        RecordDataset(write(tmp_path / "train.rec", [0, 1], 2, header_label=label))


def test_a_file_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no image \(3 records\); the index \(.*train\.idx\) may be of another file"
    ):
        RecordDataset(write(tmp_path / "train.rec", [], 2))


def test_bare_records_are_no_data_set(data_root: Path) -> None:
    with pytest.raises(DataError, match="no IRHeader"):
        RecordDataset(data_root / "formats/f_raw.rec")


def test_a_data_set_travels_to_another_process(data_root: Path) -> None:
    dataset = RecordDataset(data_root / "formats/b_header_last.rec")
    again = pickle.loads(pickle.dumps(dataset))
    assert [again.read(sample) for sample in range(13)] == [dataset.read(sample) for sample in range(13)]


def test_opening_reads_no_record_that_it_need_not(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = RecordReader.record_bytes
    monkeypatch.setattr(RecordReader, "record_bytes", lambda self, key: reads.append(key) or read(self, key))
    monkeypatch.setattr(RecordReader, "headers", lambda self, keys: pytest.fail("a pass over all records"))
    RecordDataset(data_root / "lfw_train.rec")
    assert len(reads) <= 3


def test_every_image_of_every_fixture_is_what_was_expected(data_root: Path) -> None:
    files = {entry["file"]: entry for entry in json.loads((data_root / "formats/expected.json").read_text())["files"]}
    dataset = RecordDataset(data_root / "formats/d_encodings.rec")
    expected = {record["key"]: record for record in files["d_encodings.rec"]["records"]}
    for sample in range(len(dataset)):
        label, payload = dataset.read(sample)
        record = expected[dataset.key(sample)]
        assert np.ravel(record["label"])[0] == label
        assert hashlib.sha256(payload).hexdigest() == record["payload_sha256"]
