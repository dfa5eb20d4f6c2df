"""The numbers of a set are right, and every fault is named with its record."""

import json
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.evalsets import write_bin
from arcdist.data.recordio import RecordReader, RecordWriter
from arcdist.errors import DataError
from arcdist.prepare.contact_sheet import contact_sheet
from arcdist.prepare.inspect import inspect


def test_a_real_training_set_has_the_numbers_of_its_description(data_root: Path) -> None:
    found = inspect(data_root / "lfw_train.rec")
    assert (found["records"], found["images"], found["classes"], found["identities"]) == (8914, 7570, 1343, 1343)
    assert found["labels"] == [0, 1342]
    assert found["images_per_identity"]["max"] == 530
    assert found["images_per_identity"]["histogram"]["2"] == 617
    assert sum(found["images_per_identity"]["histogram"].values()) == 1343
    assert list(found["image_sizes"]) == ["112×112"]
    assert "faults" not in found
    assert found["unreadable_images"] == 0
    assert json.loads(json.dumps(found)) == found


def test_a_real_verification_set_has_the_numbers_of_its_description(data_root: Path) -> None:
    found = inspect(data_root / "cfp_dev_fp.bin", verify=True)
    assert (found["pairs"], found["genuine"], found["impostor"], found["images"]) == (300, 150, 150, 600)
    assert found["image_sizes"] == {"112×112": 600}
    assert found["faults"] == []


def test_all_sizes_of_images_are_counted(data_root: Path) -> None:
    found = inspect(data_root / "formats/d_encodings.rec", verify=True)
    assert found["image_sizes"] == {"112×112": 12, "112×96": 1}


def test_classes_without_an_image_are_counted_as_such(data_root: Path) -> None:
    found = inspect(data_root / "formats/h_sparse_index.rec")
    assert (found["classes"], found["identities"]) == (43, 5)
    assert found["images_per_identity"]["histogram"] == {"0": 38, "1": 5}
    assert found["images_per_identity"]["min"] == 1


@pytest.fixture
def faulty(data_root: Path, tmp_path: Path) -> Path:
    """Return a set of which record 2 is cut, 4 has no class and 5's magic is damaged."""
    path = tmp_path / "faulty.rec"
    with RecordReader(data_root / "formats/b_header_last.rec") as reader, RecordWriter(path) as writer:
        for key in range(1, 200):
            record = reader[key % 13 + 1]
            writer.write(key, 9 if key == 4 else record.label, record.payload[:900] if key == 2 else record.payload)
    (tmp_path / "faulty.property").write_text("4,112,112\n")
    with RecordReader(path) as reader:
        offset = reader.offset(5)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\0")
    return path


def test_every_fault_is_collected_with_its_record(faulty: Path) -> None:
    found = inspect(faulty, verify=True)
    assert len(found["faults"]) == 3
    for fault, key, what in zip(found["faults"], (2, 4, 5), ("cut short|damaged", "label is 9", "magic")):
        assert f"record {key}" in fault
        assert any(word in fault for word in what.split("|"))
    assert found["image_sizes"] == {"112×112": 196}


def test_without_verify_a_damaged_head_is_an_error(faulty: Path) -> None:
    with pytest.raises(DataError, match=r"record 5 at byte .*magic"):
        inspect(faulty)


def test_damaged_records_that_are_no_images_are_faults(data_root: Path, tmp_path: Path) -> None:
    content = bytearray((data_root / "lfw_train.rec").read_bytes())
    with RecordReader(data_root / "lfw_train.rec") as reader:
        content[reader.offset(7700)] ^= 255
    (tmp_path / "x.rec").write_bytes(content)
    (tmp_path / "x.idx").write_bytes((data_root / "lfw_train.idx").read_bytes())
    (tmp_path / "property").write_text("1343,112,112\n")
    faults = inspect(tmp_path / "x.rec", verify=True)["faults"]
    assert len(faults) == 1
    assert "record 7700" in faults[0]


def test_a_property_that_the_records_contradict_is_a_fault(data_root: Path, tmp_path: Path) -> None:
    for ending in (".rec", ".idx"):
        (tmp_path / f"x{ending}").write_bytes((data_root / f"formats/b_header_last{ending}").read_bytes())
    (tmp_path / "x.property").write_text("5,96,112\n")
    size, classes = inspect(tmp_path / "x.rec", verify=True)["faults"]
    assert size.endswith("x.property: says 96×112 pixels, which no image has (112×112)")
    assert classes.endswith("x.property: says 5 classes, but record 0 lists 4")


def test_without_verify_unreadable_images_are_counted(data_root: Path, tmp_path: Path) -> None:
    good = next((data_root / "dev_images").glob("*/*.jpg")).read_bytes()
    write_bin(tmp_path / "x.bin", [good, good, good, b"no picture"], [True, False])
    assert inspect(tmp_path / "x.bin")["unreadable_images"] == 1


def test_an_image_of_a_bin_that_cannot_be_decoded_is_a_fault(data_root: Path, tmp_path: Path) -> None:
    good = next((data_root / "dev_images").glob("*/*.jpg")).read_bytes()
    write_bin(tmp_path / "x.bin", [good, good, good, b"no picture"], [True, False])
    found = inspect(tmp_path / "x.bin", verify=True)
    assert [fault.split(":")[0] for fault in found["faults"]] == ["x.bin image 3"]
    assert found["distinct_images"] == 2


def test_another_kind_of_file_is_refused(data_root: Path) -> None:
    with pytest.raises(DataError, match="neither a"):
        inspect(data_root / "README.md")


@pytest.mark.parametrize("name", ["lfw_train.rec", "lfw_dev.bin", "formats/b_three_labels.rec"])
def test_a_contact_sheet_is_about_square_and_full_of_pictures(data_root: Path, name: str) -> None:
    sheet = contact_sheet(data_root / name, count=30)
    assert sheet.dtype == np.uint8
    assert 0.5 < sheet.shape[0] / sheet.shape[1] < 2
    assert sheet.std() > 30


def test_a_contact_sheet_shows_an_image_that_cannot_be_decoded_as_a_tile(tmp_path: Path) -> None:
    write_bin(tmp_path / "x.bin", [b"no", b"picture"], [True])
    assert contact_sheet(tmp_path / "x.bin").shape == (120, 240, 3)
