"""What becomes of a file while it is read is an error with its name, never the end of the process or a hang."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.byte_file import ByteFile
from arcdist.data.datasets import RecordDataset
from arcdist.data.order import Order
from arcdist.data.torch_loader import LoaderConfig, TorchLoader
from arcdist.errors import DataError


def test_a_file_that_shrinks_while_it_is_read_is_named_and_what_is_left_is_read(path: Path) -> None:
    dataset = RecordDataset(path)
    dataset.labels()
    os.truncate(path, path.stat().st_size // 2)  # of a mapped file this would be SIGBUS
    dataset.read(0)
    for fails in (lambda: dataset.read(len(dataset) - 1), dataset.labels):
        with pytest.raises(DataError, match=r"cfp_small\.rec: had [\d_]+ bytes when it was opened and has [\d_]+ now"):
            fails()


@pytest.mark.parametrize(("policy", "says"), [("error", "when it was opened"), ("skip", "bad_share allows 1")])
def test_a_file_that_shrinks_ends_a_run_under_either_policy(path: Path, policy: str, says: str) -> None:
    dataset = RecordDataset(path)
    parts = (dataset, Order(len(dataset), 0), Augment(AugmentConfig(), 0), 32, 0, 1, dataset.image_size)
    batches = TorchLoader(*parts, LoaderConfig(2, 2, on_bad_record=policy)).batches(0, 100)
    next(batches)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=says):
        list(batches)


def test_a_file_that_vanishes_is_read_to_the_end_and_missed_by_the_next_that_opens_it(path: Path) -> None:
    dataset = RecordDataset(path)
    sent = pickle.dumps(dataset)
    path.unlink()
    assert [dataset.read(sample)[0] for sample in range(len(dataset))] == dataset.labels().tolist()
    with pytest.raises(DataError, match=r"cfp_small\.rec: cannot be read: No such file"):
        pickle.loads(sent)


def test_another_process_reads_the_same_file(path: Path) -> None:
    dataset = RecordDataset(path)
    assert pickle.loads(pickle.dumps(dataset)).read(3) == dataset.read(3)
    sent = pickle.dumps(dataset)
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="when it was opened"):
        pickle.loads(sent)


def test_a_disk_that_fails_is_told_with_the_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ByteFile(path)

    def fails(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(DataError, match=r"cfp_small\.rec: cannot be read at byte 1_000: Input/output error"):
        file.read(1000, 8)


def test_bytes_are_those_of_the_file(path: Path) -> None:
    file, whole = ByteFile(path), path.read_bytes()
    for offset in np.linspace(0, len(whole), 20).astype(int).tolist():
        assert file.read(offset, 5000) == whole[offset : offset + 5000]
    assert bytes(file.mapped()) == whole
