"""A local cache gives the bytes of the file, within its limit, to every process, whoever is killed meanwhile."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import full_disk

from arcdist.data.datasets import RecordDataset
from arcdist.data.local_cache import LocalCache, LocalCacheConfig
from arcdist.data.sources import DataConfig
from arcdist.errors import ConfigError

BLOCK = 1 << 16


@pytest.fixture
def path(data_root: Path, tmp_path: Path) -> Path:
    """Return a copy of a small real set of a megabyte, 15 blocks, in a folder of its own."""
    (tmp_path / "far").mkdir()
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(data_root / f"cfp_small{suffix}", tmp_path / "far")
    os.chmod(tmp_path / "far/cfp_small.rec", 0o644)
    return tmp_path / "far/cfp_small.rec"


def filled(path: Path, folder: Path, limit: int = 1 << 30) -> LocalCache:
    cache = LocalCache(folder, limit, BLOCK)
    cache.copies(path)
    cache.fill().join(30)
    return cache


def all_of(dataset: RecordDataset) -> list[tuple[int, bytes]]:
    return [dataset.read(sample) for sample in range(len(dataset))]


def blocks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.block"))


def test_a_set_is_read_from_the_copies_alone_once_they_are_there(path: Path, tmp_path: Path) -> None:
    whole = all_of(RecordDataset(path))
    cache = filled(path, tmp_path / "near")
    assert sum(block.stat().st_size for block in blocks(tmp_path / "near")) == path.stat().st_size
    dataset = RecordDataset(path, cache)
    with open(path, "r+b") as file:  # what still came from the file would be told by its zeros
        file.write(bytes(path.stat().st_size))
    crossing = 0
    for sample, expected in enumerate(whole):
        offset = dataset.reader.offset(dataset.key(sample))
        if offset % BLOCK + (1 << 14) <= BLOCK:
            assert dataset.read(sample) == expected
        else:
            crossing += 1
    assert crossing < len(whole) / 2


def test_another_process_reads_the_same_copies(path: Path, tmp_path: Path) -> None:
    whole = RecordDataset(path).read(0)
    sent = pickle.dumps(RecordDataset(path, filled(path, tmp_path / "near")))
    with open(path, "r+b") as file:  # what still came from the file would be told by its zeros
        file.write(bytes(path.stat().st_size))
    assert pickle.loads(sent).read(0) == whole


def test_a_set_of_any_number_of_blocks_takes_no_open_files(path: Path, tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    cache = filled(path, tmp_path / "near")
    dataset = RecordDataset(path, cache)
    before = open_files()
    all_of(dataset)
    assert open_files() == before
    for block in blocks(tmp_path / "near"):
        block.unlink()
    assert all_of(dataset) == all_of(RecordDataset(path))


def test_the_limit_is_kept_and_the_rest_is_read_from_the_file(path: Path, tmp_path: Path) -> None:
    cache = filled(path, tmp_path / "near", limit=5 * BLOCK)
    assert sorted(int(block.name.split(".")[1]) for block in blocks(tmp_path / "near")) == [0, 1, 2, 3, 4]
    assert all_of(RecordDataset(path, cache)) == all_of(RecordDataset(path))


def test_copies_of_other_files_make_room_and_a_changed_file_is_copied_anew(path: Path, tmp_path: Path) -> None:
    filled(path, tmp_path / "near", limit=6 * BLOCK)
    old = blocks(tmp_path / "near")
    os.utime(path, (1, 1))
    filled(path, tmp_path / "near", limit=6 * BLOCK)
    new = blocks(tmp_path / "near")
    assert len(new) == 6
    assert not set(old) & set(new)


def test_of_copies_of_other_files_the_longest_unused_go_first(path: Path, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    for age, name in enumerate(("new", "older", "oldest")):
        block = tmp_path / f"near/{name}.0.block"
        block.write_bytes(bytes(BLOCK))
        os.utime(block, (1000 - age, 1000 - age))
    cache = LocalCache(tmp_path / "near", 4 * BLOCK, BLOCK)
    (tmp_path / "far/two.rec").write_bytes(bytes(2 * BLOCK))
    cache.copies(tmp_path / "far/two.rec")
    cache.fill().join(30)
    left = {block.name.partition(".")[0] for block in blocks(tmp_path / "near")}
    assert left & {"new", "older", "oldest"} == {"new", "older"}
    assert len(blocks(tmp_path / "near")) == 4


def test_a_file_that_is_replaced_before_it_is_copied_leaves_no_copy(path: Path, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "near", 1 << 30, BLOCK)
    cache.copies(path)
    os.utime(path, (1, 1))
    cache.fill().join(30)
    assert not blocks(tmp_path / "near")


FILL = """
import sys
from pathlib import Path
from arcdist.data.local_cache import LocalCache
cache = LocalCache(Path(sys.argv[2]), 1 << 30, int(sys.argv[3]))
cache.copies(Path(sys.argv[1]))
cache.fill().join()
"""


def test_two_processes_fill_one_folder_and_a_killed_one_leaves_no_block_that_is_not_whole(
    path: Path, tmp_path: Path
) -> None:
    near = tmp_path / "near"
    whole = path.read_bytes()
    processes = [subprocess.Popen([sys.executable, "-c", FILL, path, near, str(BLOCK)]) for _ in range(2)]
    while not blocks(near) and processes[0].poll() is None:
        time.sleep(0.001)
    processes[0].kill()
    assert processes[1].wait(60) == 0
    processes[0].wait(60)
    (near / "left.3.partial").write_bytes(b"of one that was killed")
    filled(path, near)
    assert not list(near.glob("*.partial"))
    found = {int(block.name.split(".")[1]): block.read_bytes() for block in blocks(near)}
    assert b"".join(found[number] for number in range(len(found))) == whole


def test_a_local_disk_that_is_full_keeps_no_part_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "far.rec").write_bytes(bytes(2 * BLOCK))
    with full_disk(BLOCK // 2):
        filled(tmp_path / "far.rec", tmp_path / "near")
    assert [left.name for left in (tmp_path / "near").iterdir()] == ["lock"]


def test_a_run_says_where_its_cache_is_and_how_large(path: Path, tmp_path: Path) -> None:
    config = DataConfig(path=str(path), cache=LocalCacheConfig(str(tmp_path / "near"), 1.0))
    config.validate()
    dataset = config.open()
    deadline = time.monotonic() + 30
    while not blocks(tmp_path / "near") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [block.read_bytes() for block in blocks(tmp_path / "near")] == [path.read_bytes()]
    dataset.close()
    with pytest.raises(ConfigError, match=r"^data\.cache\.limit_gib: 0\.0: must be above 0"):
        LocalCacheConfig("near").validate()
    with pytest.raises(ConfigError, match=r"^data\.cache\.folder: .*cannot be written"):
        LocalCacheConfig(str(path), 1.0).build()
