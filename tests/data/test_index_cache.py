"""A large index is parsed once, and again where one of its files has changed."""

import os
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import full_disk

from arcdist.data import recordio
from arcdist.data.datasets import RecordDataset
from arcdist.data.index_cache import cached_index
from arcdist.data.record_index import RecordIndex, read_index
from arcdist.data.recordio import RecordReader, RecordWriter

N = 1000


@pytest.fixture
def rec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a .rec whose index counts as large."""
    monkeypatch.setattr(recordio, "LEAST_BYTES", 0)
    return write(tmp_path / "train.rec", b"first")


def write(path: Path, payload: bytes) -> Path:
    with RecordWriter(path) as writer:
        for key in range(3, 3 + N):
            writer.write(key, 0, payload)
    return path


def test_the_cached_index_is_that_of_the_text(rec: Path) -> None:
    text = read_index(rec.with_suffix(".idx"), rec, rec.stat().st_size)
    for _ in range(2):  # made, and mapped
        with RecordReader(rec) as reader:
            assert reader.sorted_keys().tolist() == text.keys.tolist()
            assert [reader.offset(key) for key in (3, 500, N + 2)] == text.offsets[[0, 497, N - 1]].tolist()
            assert reader[500].payload == b"first"


def test_the_text_is_parsed_once_by_all_who_open_it_at_the_same_time(rec: Path) -> None:
    parsed = []

    def read() -> RecordIndex:
        parsed.append(1)
        time.sleep(0.1)  # the others come meanwhile
        return read_index(rec.with_suffix(".idx"), rec, rec.stat().st_size)

    with ThreadPoolExecutor(8) as pool:
        opened = [
            pool.submit(cached_index, rec.with_suffix(".idx"), rec.stat().st_size, read) for _ in range(8)
        ]  # fmt: skip
    assert {len(each.result()) for each in opened} == {N}
    assert len(parsed) == 1


def test_a_changed_index_is_parsed_again(rec: Path) -> None:
    RecordReader(rec).close()
    write(rec, b"second, and longer")
    with RecordReader(rec) as reader:
        assert reader[N + 2].payload == b"second, and longer"


@pytest.mark.parametrize("left", [0, 39, 40 + 16 * N - 1])
def test_a_cache_that_is_cut_short_is_made_again(rec: Path, left: int) -> None:
    RecordReader(rec).close()
    cache = rec.with_name("train.idx.cache")
    os.truncate(cache, left)
    with RecordReader(rec) as reader:
        assert len(reader) == N
    assert cache.stat().st_size == 40 + 16 * N


def test_an_index_is_read_where_no_folder_takes_its_cache(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as a folder that only its owner may write into
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with RecordReader(rec) as reader:
        assert len(reader) == N


def test_an_index_is_read_where_the_disk_is_too_full_for_its_cache(rec: Path) -> None:
    with full_disk(100), RecordReader(rec) as reader:
        assert reader[N + 2].payload == b"first"
    assert not list(rec.parent.glob("*.partial"))
    assert not rec.with_name("train.idx.cache").exists()


def test_the_index_is_mapped_and_not_copied(rec: Path) -> None:
    RecordReader(rec).close()
    mapped = cached_index(rec.with_suffix(".idx"), rec.stat().st_size, lambda: pytest.fail("was parsed again"))
    assert not mapped.keys.flags.writeable
    assert isinstance(mapped.keys.base, np.memmap)


def test_a_mapped_index_is_not_sent_but_mapped_again(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(data_root / f"cfp_small{suffix}", tmp_path)
    path = tmp_path / "cfp_small.rec"
    in_memory = len(pickle.dumps(RecordDataset(path)))
    monkeypatch.setattr(recordio, "LEAST_BYTES", 0)
    dataset = RecordDataset(path)
    sent = pickle.dumps(dataset)
    assert len(sent) < in_memory - 16 * len(dataset)
    received = pickle.loads(sent)
    np.testing.assert_array_equal(received.keys, dataset.keys)
    assert [received.read(sample) for sample in (0, 100, 223)] == [dataset.read(sample) for sample in (0, 100, 223)]
