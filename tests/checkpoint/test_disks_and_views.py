"""What a disk has of a checkpoint when power fails, what each node sees of it, and who may still be writing."""

import errno
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support import CONTEXT, run_ranks

from arcdist.bench import faults_checkpoint
from arcdist.checkpoint.folder import newest_checkpoint
from arcdist.checkpoint.lock import RunLock
from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.runtime import collectives

TENSORS = {"backbone.weight": torch.ones(300, 20), "head.count": torch.zeros((), dtype=torch.int64)}


def _save(folder: Path, step: int) -> str | None:
    manager = CheckpointManager(folder, CheckpointConfig())
    manager.save(step, TENSORS, {"config": {}}, wait=True)
    return manager.wait()


@contextmanager
def _called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, dict[int, int]]]]:
    """Note every flush and every rename of a folder: which, of what, and the bytes of each file of the folder then."""
    calls: list[tuple[str, int, dict[int, int]]] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        calls.append(("fsync", os.fstat(handle).st_ino, {os.fstat(handle).st_ino: os.fstat(handle).st_size}))

    def noted_rename(path: Path, target: Path) -> Path:
        if path.is_dir():
            files = {file.stat().st_ino: file.stat().st_size for file in path.iterdir()}
            calls.append(("rename", path.stat().st_ino, files))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(Path, "rename", noted_rename)
        yield calls


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_the_name_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        _save(tmp_path, step)
    with _called(monkeypatch) as calls:
        assert _save(tmp_path, 3) is None
    (number, (_, folder, files)), (removed, _) = [(n, call) for n, call in enumerate(calls) if call[0] == "rename"]
    flushed = {inode: sizes for kind, inode, sizes in calls[:number] if kind == "fsync"}
    assert len(files) == 4  # a shard, .metadata, model.safetensors, the marker
    assert {inode: flushed[inode][inode] for inode in files} == files
    assert folder in flushed
    assert tmp_path.stat().st_ino in {inode for kind, inode, _ in calls[number:removed] if kind == "fsync"}


def test_a_disk_that_does_not_flush_costs_a_checkpoint_and_not_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 1)

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        fault = _save(tmp_path, 2)
    assert "Input/output error" in (fault or "")
    assert sorted(path.name for path in tmp_path.glob("*step-*")) == ["step-000000001"]


def _newest_as_seen_from(folders: list[Path]) -> tuple[str, list[str]]:
    """Return the newest checkpoint, and what is said, where each rank sees a folder of the same name as its own."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("arcdist").addHandler(handler)
    logging.getLogger("arcdist").disabled = False
    os.chdir(folders[collectives.rank()])
    found = CheckpointManager(Path("checkpoints"), CheckpointConfig()).newest(Path("checkpoints"))
    return str(found), said


def test_ranks_that_do_not_all_see_the_newest_checkpoint_go_on_together_from_one_that_all_see(tmp_path: Path) -> None:
    for step in (1, 2):
        _save(tmp_path / "0/checkpoints", step)
    for rank in (1, 2):
        shutil.copytree(tmp_path / "0", tmp_path / str(rank))
    shutil.rmtree(tmp_path / "2/checkpoints/step-000000002")
    seen = run_ranks(_newest_as_seen_from, 3, [tmp_path / str(rank) for rank in range(3)])
    assert [found for found, _ in seen] == 3 * ["checkpoints/step-000000001"]
    assert any("step-000000002 is passed over" in line and "is missing" in line for line in seen[0][1])


def test_a_process_that_froze_in_a_save_keeps_others_out_until_it_is_dead_and_its_save_never_counts(
    tmp_path: Path,
) -> None:
    _save(tmp_path, 1)
    process = CONTEXT.Process(target=faults_checkpoint._save, args=(tmp_path, 2, 20_000_000, 1), daemon=True)
    process.start()
    try:
        next(faults_checkpoint._writing(tmp_path, set(), process, 60))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(CheckpointError, match=rf"process {process.pid} on .* is writing into this folder"):
            RunLock(tmp_path)
    finally:
        process.kill()
        process.join()
    manager = CheckpointManager(tmp_path, CheckpointConfig())
    manager.prepare(TENSORS)
    assert sorted(path.name for path in tmp_path.glob("*step-*")) == ["step-000000001"]
    assert read_marker(newest_checkpoint(tmp_path) or tmp_path)["step"] == 1
