"""Packing gives the same bytes with any number of workers, and a killed one leaves nothing that looks whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcdist.data.datasets import RecordDataset
from arcdist.prepare.pack import PackConfig, pack


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of 40 identities, most with more images than a chunk holds, some files unreadable."""
    generator = np.random.default_rng(0)
    for identity in range(40):
        (folder := tmp_path / "images" / f"{identity:03d}").mkdir(parents=True)
        for number in range(identity % 23 + 1):
            image = generator.integers(0, 256, (112, 112, 3), np.uint8)
            cv2.imwrite(str(folder / f"{number:03d}.png"), image)
        if identity % 5 == 0:
            (folder / "notes.txt").write_text("no image")
    return tmp_path / "images"


def test_any_number_of_workers_writes_the_same_bytes(images: Path, tmp_path: Path) -> None:
    written = {}
    for workers in (1, 2, 7):
        output = tmp_path / f"of_{workers}" / "set.rec"
        report = pack(PackConfig(str(images), str(output), workers=workers, progress=False))
        assert len(report.skipped) == 8
        written[workers] = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    assert set(written[1]) == {"set.rec", "set.idx", "set.lst", "set.property", "property"}
    assert written[1] == written[2] == written[7]


def test_a_killed_pack_leaves_no_file_that_looks_whole(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "set.rec"
    output.parent.mkdir()
    os.mkfifo(images / "039" / "zzz.jpg")  # nobody writes into it, so the pack waits there, nearly done
    command = [sys.executable, "-m", "arcdist", "pack", str(images), str(output), "progress=false"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in output.parent.glob("set.rec.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert all(path.name.endswith(".partial") for path in output.parent.iterdir())

    (images / "039" / "zzz.jpg").unlink()
    report = pack(PackConfig(str(images), str(output), progress=False))
    assert len(RecordDataset(output)) == report.images
