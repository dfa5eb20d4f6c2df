"""What is kept of a set is what the configuration says, numbered without gaps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcdist.data.datasets import RecordDataset
from arcdist.data.selection import SelectConfig, Selection
from arcdist.data.sources import DataConfig
from arcdist.errors import ConfigError, DataError


@pytest.fixture
def lfw(data_root: Path) -> RecordDataset:
    return RecordDataset(data_root / "lfw_train.rec")


def check(whole: RecordDataset, config: SelectConfig, expected: np.ndarray) -> Selection:
    """Return the selection, whose images are checked to be these samples with their labels in the old order."""
    found = Selection(whole, config)
    old = whole.labels()[expected]
    assert len(found) == len(expected)
    assert found.labels().tolist() == np.unique(old, return_inverse=True)[1].tolist()
    assert found.num_classes == len(np.unique(old))
    for sample in range(0, len(found), 501):
        assert found.read(sample) == (found.labels()[sample], whole.read(int(expected[sample]))[1])
        assert found.name(sample) == whole.name(int(expected[sample]))
    return found


def test_identities_with_few_images_are_left_out(lfw: RecordDataset) -> None:
    counts = np.bincount(lfw.labels())
    found = check(lfw, SelectConfig(min_images=7), np.flatnonzero(counts[lfw.labels()] >= 7))
    assert found.num_classes == 206  # as the description of the data counts


def test_a_range_of_classes_is_kept(lfw: RecordDataset) -> None:
    labels = lfw.labels()
    check(lfw, SelectConfig(classes=[100, 900]), np.flatnonzero((labels >= 100) & (labels < 900)))


def test_the_records_of_a_clean_list_are_kept(lfw: RecordDataset, tmp_path: Path) -> None:
    path = tmp_path / "clean.txt"
    path.write_text("# key\tcosine to its center\n7\t0.81\n5 # a remark\n\n4000\n")
    check(lfw, SelectConfig(clean_list=str(path)), np.array([4, 6, 3999]))


def test_images_that_a_clean_list_leaves_out_do_not_count(lfw: RecordDataset, tmp_path: Path) -> None:
    even, labels = np.flatnonzero(lfw.keys % 2 == 0), lfw.labels()
    (tmp_path / "clean.txt").write_text("".join(f"{key}\n" for key in lfw.keys[even]))
    expected = even[np.bincount(labels[even], minlength=lfw.num_classes)[labels[even]] >= 7]
    check(lfw, SelectConfig(clean_list=str(tmp_path / "clean.txt"), min_images=7), expected)


def test_who_is_held_out_never_changes(lfw: RecordDataset) -> None:
    """Runs of other versions are compared on the same identities."""
    labels = lfw.labels()
    held_out = np.unique(labels[SelectConfig(held_out=0.1, side="held_out").keep(lfw, labels)])
    assert held_out[:8].tolist() == [8, 12, 14, 18, 28, 42, 70, 72]


def test_the_two_sides_of_a_split_share_no_identity_and_lose_none(lfw: RecordDataset) -> None:
    labels = lfw.labels()
    train, held_out = (SelectConfig(held_out=0.1, side=side).keep(lfw, labels) for side in ("train", "held_out"))
    assert (train ^ held_out).all()
    assert not np.isin(labels[train], labels[held_out]).any()
    assert 0.07 < len(np.unique(labels[held_out])) / lfw.num_classes < 0.13
    more = SelectConfig(held_out=0.1, side="held_out", min_images=5).keep(lfw, labels)
    assert (held_out | ~more).all()  # who is held out does not depend on what else is left out


def test_a_selection_is_trained_on(data_root: Path) -> None:
    config = DataConfig(path=str(data_root / "cfp_small.rec"), select=SelectConfig(classes=[4, 9]))
    config.validate()
    dataset = config.open()
    assert dataset.num_classes == 5
    assert "70 images of 5 identities are kept" in dataset.layout


def test_a_selection_of_nothing_is_refused(lfw: RecordDataset) -> None:
    with pytest.raises(DataError, match=r"lfw_train\.rec: data\.select leaves none of its 7570 images"):
        Selection(lfw, SelectConfig(min_images=10_000))


def test_a_list_that_is_none_is_refused(lfw: RecordDataset, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("George_W_Bush\n")
    for name, message in (("names.txt", "is no list of record keys"), ("absent.txt", "cannot be read")):
        with pytest.raises(DataError, match=message):
            Selection(lfw, SelectConfig(clean_list=str(tmp_path / name)))


def test_the_clean_list_of_another_file_is_refused(lfw: RecordDataset, tmp_path: Path) -> None:
    path = tmp_path / "clean.txt"
    for text, message in (
        ("7\n-4\n99999\n", r"2 of its 3 keys are no image of .*the first: -4"),
        ("", "lists no record"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            Selection(lfw, SelectConfig(clean_list=str(path)))


@pytest.mark.parametrize(
    "change", [{"classes": [3]}, {"classes": [9, 4]}, {"min_images": -1}, {"held_out": 1.0}, {"side": "test"}]
)
def test_a_value_that_cannot_be_right_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.select\.{next(iter(change))}: "):
        SelectConfig(**change).validate()
