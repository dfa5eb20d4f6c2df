"""A run's folder has one writer."""

import subprocess
import sys
from pathlib import Path

import pytest

from arcdist.checkpoint.lock import RunLock
from arcdist.checkpoint.marker import CheckpointError


def test_a_folder_that_another_process_writes_into_is_refused(tmp_path: Path) -> None:
    held = _holder(tmp_path)
    try:
        with pytest.raises(CheckpointError, match="is writing into this folder"):
            RunLock(tmp_path)
    finally:
        held.kill()
        held.wait()
    RunLock(tmp_path)


def test_a_refusal_leaves_no_file_open(tmp_path: Path) -> None:
    held = _holder(tmp_path)
    try:
        with pytest.raises(CheckpointError) as refused:  # keeps the frames of what was refused, and so its file
            RunLock(tmp_path)
        files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        assert tmp_path / ".lock" not in files, refused.value
    finally:
        held.kill()
        held.wait()


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(CheckpointError, match=r"\.lock: cannot be written: Is a directory"):
        RunLock(tmp_path)


def _holder(folder: Path) -> subprocess.Popen:
    """Return a process that holds the lock of a folder."""
    code = f"import pathlib, time; from arcdist.checkpoint.lock import RunLock; lock = RunLock(pathlib.Path({str(folder)!r})); print(flush=True); time.sleep(60)"  # noqa: E501
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process
