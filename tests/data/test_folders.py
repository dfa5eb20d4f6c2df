"""A folder with a folder an identity is a training set as it lies there."""

import shutil
from pathlib import Path

import pytest

from arcdist.data.folders import FolderDataset
from arcdist.data.sources import DataConfig
from arcdist.errors import DataError


def test_every_image_of_a_real_folder_is_read_with_its_identity(data_root: Path) -> None:
    dataset = FolderDataset(data_root / "dev_images")
    assert (len(dataset), dataset.num_classes, dataset.image_size) == (102, 26, (112, 112))
    names = dataset.identities()
    for sample, label in enumerate(dataset.labels().tolist()):
        found, payload = dataset.read(sample)
        assert found == label
        assert Path(dataset.name(sample)).parent.name == names[label]
        assert payload == Path(dataset.name(sample)).read_bytes()


def test_a_folder_is_given_as_the_path_of_a_run(data_root: Path) -> None:
    config = DataConfig(path=str(data_root / "dev_images"))
    config.validate()
    assert config.open().layout.endswith("a folder of 102 images in 26 identities' folders; 112×112 pixels")


def test_identities_in_folders_of_folders_keep_their_whole_name(data_root: Path, tmp_path: Path) -> None:
    for name in ("asia/1", "europe/1", ".hidden"):
        shutil.copytree(data_root / "dev_images/Adam_Sandler", tmp_path / name)
    assert FolderDataset(tmp_path).identities() == ["asia/1", "europe/1"]


def test_linked_folders_are_identities_and_links_that_lead_back_are_not(data_root: Path, tmp_path: Path) -> None:
    for name in ("Adam_Sandler", "Al_Gore"):
        shutil.copytree(data_root / "dev_images/Adam_Sandler", tmp_path / "all" / name)
    (tmp_path / "some").mkdir()
    (tmp_path / "some/Adam").symlink_to(tmp_path / "all/Adam_Sandler")
    (tmp_path / "some/Al").symlink_to("../all/Al_Gore")
    (tmp_path / "all/Al_Gore/here").symlink_to(".")
    (tmp_path / "all/Al_Gore/around").symlink_to(tmp_path / "some")
    dataset = FolderDataset(tmp_path / "some")
    assert dataset.identities() == ["Adam", "Al"]
    assert len(dataset) == 2 * len(list((data_root / "dev_images/Adam_Sandler").iterdir()))


def test_an_image_of_nobody_and_a_file_that_vanished_are_named(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "dev_images/Adam_Sandler", tmp_path / "Adam")
    dataset = FolderDataset(tmp_path)
    gone = Path(dataset.name(1))
    gone.rename(tmp_path / "stray.jpg")
    with pytest.raises(DataError, match=rf"^{gone}: cannot be read: No such file"):
        dataset.read(1)
    with pytest.raises(DataError, match=r"stray\.jpg: lies in no identity's folder"):
        FolderDataset(tmp_path)


def test_the_work_of_a_pack_that_was_killed_is_no_identity(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "dev_images", tmp_path / "faces")
    before = len(FolderDataset(tmp_path / "faces"))
    (tmp_path / "faces/train.rec.partial").mkdir()
    (tmp_path / "faces/train.rec.partial/0001.jpg").write_bytes(b"half")
    assert len(FolderDataset(tmp_path / "faces")) == before
