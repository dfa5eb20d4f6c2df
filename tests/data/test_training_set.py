"""A training set as insightface lays it out."""

from pathlib import Path

import pytest

from arcdist.data.recordio import RecordError, RecordReader
from arcdist.data.training_set import TrainingSetWriter
from arcdist.errors import DataError


def test_images_come_first_then_the_header_then_an_identity_record_each(tmp_path: Path) -> None:
    with TrainingSetWriter(tmp_path / "x.rec", 112) as writer:
        keys = [writer.write(label, bytes([label])) for label in (0, 0, 1, 2, 2, 2)]
    assert keys == [1, 2, 3, 4, 5, 6]
    with RecordReader(tmp_path / "x.rec") as reader:
        assert reader.keys().tolist() == [1, 2, 3, 4, 5, 6, 0, 7, 8, 9]
        assert reader[0].label.tolist() == [7, 10]
        assert [reader[key].label.tolist() for key in (7, 8, 9)] == [[1, 3], [3, 4], [4, 7]]
        assert [reader[key].label for key in (1, 3, 6)] == [0, 1, 2]
    assert (tmp_path / "x.property").read_text() == (tmp_path / "property").read_text() == "3,112,112\n"


def test_the_folders_own_property_is_left_to_the_set_that_was_there(tmp_path: Path) -> None:
    for name, identities in (("a", 1), ("b", 2)):
        with TrainingSetWriter(tmp_path / f"{name}.rec", 112) as writer:
            for label in range(identities):
                writer.write(label, b"x")
    assert (tmp_path / "property").read_text() == "1,112,112\n"
    assert (tmp_path / "b.property").read_text() == "2,112,112\n"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), TrainingSetWriter(tmp_path / "x.rec", 112) as writer:
        writer.write(0, b"x")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_failure_at_the_end_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="a key is at least 0"), TrainingSetWriter(tmp_path / "x.rec", 112) as writer:
        writer.write(0, b"x")
        writer._next_key = 1 << 63  # what the records of identities cannot have
    assert not list(tmp_path.iterdir())


def test_a_property_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.property").mkdir()
    with pytest.raises(DataError, match=r"x\.property: cannot be written"), TrainingSetWriter(tmp_path / "x.rec", 112):
        pass


@pytest.mark.parametrize("end", [16_777_216, 16_777_217, 33_554_435])
def test_a_header_never_makes_others_take_an_identity_record_for_an_image(tmp_path: Path, end: int) -> None:
    with TrainingSetWriter(tmp_path / "x.rec", 112) as writer:
        writer.write(0, b"x")
        writer._next_key = end  # as if so many images had been written
    with RecordReader(tmp_path / "x.rec") as reader:
        stated = int(reader[0].first_label)
    assert end - 3 <= stated <= end
