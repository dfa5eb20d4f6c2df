"""Packing gives the same bytes with any number of workers, and goes on after a kill as if there had been none."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import CONTEXT

from arcdist.data.datasets import RecordDataset
from arcdist.errors import DataError
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
    files = {}
    for workers in (1, 2, 7):
        output = tmp_path / f"of_{workers}" / "set.rec"
        report = pack(PackConfig(str(images), str(output), workers=workers, progress=False))
        assert len(report.skipped) == 8
        files[workers] = written(output)
    assert set(files[1]) == {"set.rec", "set.idx", "set.lst", "set.property", "property"}
    assert files[1] == files[2] == files[7]


def written(output: Path) -> dict[str, bytes]:
    """Return every file beside an output."""
    return {path.name: path.read_bytes() for path in output.parent.iterdir()}


@pytest.fixture
def undisturbed(images: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return the files that a pack writes which nothing disturbs."""
    output = tmp_path / "undisturbed" / "set.rec"
    pack(PackConfig(str(images), str(output), progress=False))
    return written(output)


def pack_and_say_so(config: PackConfig, begun: Event) -> None:
    """Pack, and set the event before."""
    begun.set()
    pack(config)


def killed(config: PackConfig, after_s: float) -> bool:
    """Pack in a process of its own that is killed after a while; return whether it had not ended by itself."""
    begun = CONTEXT.Event()
    process = CONTEXT.Process(target=pack_and_say_so, args=(config, begun))
    process.start()
    begun.wait(60)
    process.join(after_s)
    if not process.is_alive():
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def test_after_any_number_of_kills_the_files_are_those_of_an_undisturbed_pack(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "killed" / "set.rec"
    output.parent.mkdir()
    config = PackConfig(str(images), str(output), workers=2, progress=False)
    journal = output.parent / "set.rec.partial" / "journal"
    draws, kills, most = random.Random(0), 0, 0
    walls = [images / name / "zzz.jpg" for name in ("010", "020", "030")]
    for wall in walls:
        os.mkfifo(wall)  # nobody writes into it, so a pack gets no further, and is killed however fast it is
    while killed(config, draws.uniform(0, 0.1) * (1 + kills / 10)):
        kills += 1
        if walls:
            walls.pop(0).unlink()
        if not output.exists():
            assert {path.name for path in output.parent.iterdir()} <= {"set.rec.partial"}
        if journal.exists() and not output.exists():
            lines = len(journal.read_bytes().splitlines())
            assert lines >= most - 2, "what was done is still there"  # but for what the last kill cut
            most = lines
    assert kills >= 3
    assert written(output) == undisturbed


def test_a_killed_command_goes_on_from_what_is_done(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out" / "set.rec"
    output.parent.mkdir()
    os.mkfifo(images / "039" / "zzz.jpg")  # nobody writes into it, so the pack waits there, nearly done
    command = [sys.executable, "-m", "arcdist", "pack", str(images), str(output), "progress=false"]
    process = subprocess.Popen(command)
    journal = output.parent / "set.rec.partial" / "journal"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(DataError, match=r"set.rec.partial: another process is at work in it"):
        pack(PackConfig(str(images), str(output), progress=False))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in output.parent.iterdir()] == ["set.rec.partial"]

    (images / "039" / "zzz.jpg").unlink()
    report = pack(PackConfig(str(images), str(output), progress=False))
    assert 0 < report.resumed < report.images == len(RecordDataset(output))
    assert written(output) == undisturbed


def stop_at_the_last_folder(images: Path, output: Path) -> PackConfig:
    """Pack until an image in the last folder is of a wrong size, and take that away; return the configuration."""
    wrong = images / "039" / "000_wrong.png"
    cv2.imwrite(str(wrong), np.zeros((50, 50, 3), np.uint8))
    config = PackConfig(str(images), str(output), progress=False, workers=1)
    with pytest.raises(DataError, match="50×50 pixels.*stays in set.rec.partial, and the same command goes on"):
        pack(config)
    wrong.unlink()
    return config


@pytest.mark.parametrize("damage", ["cut", "zeroed", "line", "index"])
def test_what_a_loss_of_power_leaves_is_not_believed(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "out" / "set.rec"
    config = stop_at_the_last_folder(images, output)
    records, journal = (output.parent / "set.rec.partial" / name for name in ("records", "journal"))
    whole = records.read_bytes()
    if damage == "cut":
        records.write_bytes(whole[: len(whole) // 2])
    if damage == "zeroed":
        records.write_bytes(whole[: len(whole) // 2] + bytes(4096) + whole[len(whole) // 2 + 4096 :])
    if damage == "line":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[: len(lines) // 2]) + b'["0')
    if damage == "index":
        records.unlink()
    report = pack(config)
    assert report.resumed < report.images
    assert (report.resumed > 0) == (damage != "index")
    assert written(output) == undisturbed


@pytest.mark.parametrize("change", ["new", "gone", "other", "repaired"])
def test_a_file_that_changed_since_is_packed_as_it_is_now(images: Path, tmp_path: Path, change: str) -> None:
    config = stop_at_the_last_folder(images, tmp_path / "out" / "set.rec")
    image = (images / "039" / "001.png").read_bytes()
    if change == "new":
        (images / "020" / "0000.png").write_bytes(image)
    if change == "gone":
        (images / "020" / "000.png").unlink()
    if change == "other":
        (images / "020" / "000.png").write_bytes(image)
    if change == "repaired":
        (images / "020" / "notes.txt").write_bytes(image)
    report = pack(config)
    assert 0 < report.resumed < report.images
    fresh = dataclasses.replace(config, output=str(tmp_path / "fresh" / "set.rec"))
    pack(fresh)
    assert written(Path(config.output)) == written(Path(fresh.output))


def test_what_was_done_with_other_settings_is_done_again(images: Path, tmp_path: Path) -> None:
    config = stop_at_the_last_folder(images, tmp_path / "out" / "set.rec")
    assert pack(dataclasses.replace(config, quality=60)).resumed == 0


def test_a_pack_that_fails_before_its_first_image_leaves_nothing(images: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(images / "000" / "000.png"), np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(DataError, match="50×50 pixels"):
        pack(PackConfig(str(images), str(tmp_path / "out" / "set.rec"), progress=False))
    assert list((tmp_path / "out").iterdir()) == []
