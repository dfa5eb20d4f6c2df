"""Several sets in one run: every image once with a label that says who it is, by offsets, names or equal labels."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arcdist.data.dali_loader import has_dali
from arcdist.data.datasets import RecordDataset
from arcdist.data.folders import FolderDataset
from arcdist.data.identities import read_identities
from arcdist.data.joined import JoinedSet
from arcdist.data.recordio import RecordWriter
from arcdist.data.selection import SelectConfig
from arcdist.data.sources import DataConfig
from arcdist.data.torch_loader import LoaderConfig
from arcdist.errors import ConfigError, DataError

KINDS = ["torch", *(["dali"] if has_dali() else [])]


def sets(data_root: Path, **values: Any) -> DataConfig:
    """Return the configuration of 224 images of 16 people and 102 of 26 others."""
    config = DataConfig(path=[str(data_root / "cfp_small.rec"), str(data_root / "dev_images")], **values)
    config.validate()
    return config


def test_labels_of_a_later_set_follow_those_of_the_sets_before(data_root: Path) -> None:
    joined = sets(data_root, num_classes=42, images=326).open()
    records, folder = RecordDataset(data_root / "cfp_small.rec"), FolderDataset(data_root / "dev_images")
    assert joined.labels().tolist() == [*records.labels().tolist(), *(folder.labels() + 16).tolist()]
    assert joined.read(223) == records.read(223)
    label, payload = folder.read(5)
    assert joined.read(224 + 5) == (16 + label, payload)
    assert "together 326 images of 42 classes, 0 being in common" in joined.layout


def test_identities_of_one_name_are_one_class(data_root: Path, tmp_path: Path) -> None:
    names = FolderDataset(data_root / "dev_images").identities()
    listing = tmp_path / "cfp.txt"
    listing.write_text("".join(f"{label}\t{names[3] if label == 7 else f'cfp {label}'}\t14\n" for label in range(16)))
    joined = sets(data_root, identities=[str(listing), ""]).open()
    assert joined.num_classes == 16 + 26 - 1
    labels = joined.labels()
    assert set(labels[:224].tolist()) & set(labels[224:].tolist()) == {7}
    assert (labels == 7).sum() == 14 + (FolderDataset(data_root / "dev_images").labels() == 3).sum()


def test_two_labels_of_one_name_are_one_class_of_a_single_set_too(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"{label}\t{label // 2}\n" for label in range(16)))
    config = DataConfig(path=str(data_root / "cfp_small.rec"), identities=[str(tmp_path / "names.txt")])
    config.validate()
    dataset = config.open()
    assert dataset.num_classes == 8
    assert dataset.labels().tolist() == (RecordDataset(data_root / "cfp_small.rec").labels() // 2).tolist()


def test_names_are_read_from_the_lists_that_lie_beside_packed_sets(data_root: Path) -> None:
    names = read_identities(data_root / "lfw_train_labels.txt", 1343)
    assert names == read_identities(data_root / "lfw_train.lst", 1343)
    assert names[2] == "Abdoulaye_Wade"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 Ann\n", "line 1: is '0 Ann', not a label and a name"),
        ("0\tAnn\n2\tBob\n", r"line 2: label 2 is no class of 0\.\.1"),
        ("0\tAnn\n0\tBob\n", "line 2: class 0 is named 'Bob' after 'Ann'"),
        ("0\tAnn\n", "has no name for class 1; the set has 2 classes"),
    ],
)
def test_a_list_of_names_that_cannot_be_right_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_identities(tmp_path / "names.txt", 2)


def test_a_label_list_that_names_records_and_no_people_is_refused(tmp_path: Path) -> None:
    (tmp_path / "both.lst").write_text("1\t0\ta.rec/5\n2\t1\ta.rec/6\n")
    with pytest.raises(DataError, match=r"both\.lst: line 1: 'a\.rec/5' names no person"):
        read_identities(tmp_path / "both.lst", 2)


def test_a_set_that_was_cut_into_files_keeps_its_labels(data_root: Path, tmp_path: Path) -> None:
    whole = RecordDataset(data_root / "cfp_small.rec")
    for part in range(2):
        with RecordWriter(tmp_path / f"{part}.rec") as writer:
            for sample in range(100 * part, 100 if part == 0 else len(whole)):  # the first has fewer classes
                writer.write(sample, *whole.read(sample))
    config = DataConfig(path=[str(tmp_path / "0.rec"), str(tmp_path / "1.rec")], same_labels=True)
    joined = config.open()
    assert joined.num_classes == 16
    every = Counter(whole.read(sample) for sample in range(len(whole)))
    assert Counter(joined.read(sample) for sample in range(len(joined))) == every


def test_a_selection_counts_over_all_sets_and_a_clean_list_is_of_one(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("# arcdist inspect\n3\n5 0.71\n")
    select = SelectConfig(clean_list=[str(tmp_path / "clean.txt"), ""], min_images=2)
    kept = sets(data_root, select=select, weights=[2, 1]).open()
    assert kept.layout.endswith(f"{len(kept)} images of {kept.num_classes} identities are kept")
    assert kept.part_sizes == [2, 102]
    order = sets(data_root, select=select, weights=[2, 1]).build_order(kept, 0)
    assert order.epoch_size == 2 * 2 + 102
    wrong = sets(data_root, select=SelectConfig(clean_list=str(tmp_path / "clean.txt")))
    with pytest.raises(ConfigError, match=r"data\.select\.clean_list: 1 lists for 2 sets of data\.path"):
        wrong.open()


def batches(config: DataConfig, world_size: int, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels of the global batches of 24 of these steps, joined from all ranks."""
    dataset = config.open()
    order = config.build_order(dataset, 7)
    ranks = [
        config.build_loader(dataset, order, 24, rank, world_size, torch.device("cpu")).batches(first, last)
        for rank in range(world_size)
    ]
    parts = [part for step in zip(*ranks, strict=True) for part in step]
    dataset.close()
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


@pytest.mark.parametrize("values", [{"weights": [1, 2]}, {"per_identity": 4}], ids=["weights", "per identity"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_several_sets_goes_on_bit_identically_on_other_ranks_and_threads(
    data_root: Path, kind: str, values: dict[str, Any]
) -> None:
    images, labels = batches(sets(data_root, loader=LoaderConfig(2, 2, "torch"), **values), 1, 0, 20)
    for world_size, workers in ((2, 1), (3, 2)):
        config = sets(data_root, loader=LoaderConfig(workers, 2, kind), **values)
        resumed, resumed_labels = batches(config, world_size, 5, 20)
        assert torch.equal(resumed_labels, labels[5 * 24 :])
        assert torch.equal(resumed, images[5 * 24 :])


def test_a_batch_has_p_identities_of_k_images(data_root: Path) -> None:
    _, labels = batches(sets(data_root, per_identity=4, loader=LoaderConfig(2, 2, "torch")), 2, 0, 7)
    groups = labels.view(-1, 4)
    assert (groups == groups[:, :1]).all()
    assert np.unique(groups[:42, 0]).size == 42


def test_sets_of_different_sizes_are_refused(data_root: Path) -> None:
    class Small(FolderDataset):
        image_size = (96, 96)

        def __init__(self) -> None:
            self.root = Path("small")

    with pytest.raises(DataError, match="have images of 112×112 and 96×96 pixels"):
        JoinedSet([FolderDataset(data_root / "dev_images"), Small()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": ["a.rec", ""]}, r"^data\.path: not set"),
        ({"path": 3}, r"^data\.path: 3: must be a path, or a list"),
        ({"weights": [1.0]}, r"^data\.weights: 1 for 2 of data\.path"),
        ({"path": ["a.rec", "./a.rec"]}, r"^data\.path: .*has a set twice"),
        ({"weights": [1.0, 0.0]}, r"^data\.weights: .*above 0"),
        ({"weights": [1.0, 1e300]}, r"^data\.weights: .*at most 1,000,000"),
        ({"identities": ["a.txt", "b.txt"], "same_labels": True}, r"^data\.same_labels: true, but"),
        ({"per_identity": -1}, r"^data\.per_identity: -1"),
        ({"per_identity": 2, "weights": [1.0, 1.0]}, r"^data\.per_identity: takes every identity in turn"),
        ({"source": "synthetic"}, r"^data\.path: a synthetic source renders one file"),
        ({"select": SelectConfig(clean_list=7)}, r"^data\.select\.clean_list: 7: must be a path"),
    ],
)
def test_a_value_that_cannot_be_right_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"path": ["a.rec", "b.rec"], **change}).validate()
