"""Worker processes make the batches that threads make; what becomes of them is told, and nothing is left behind."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from arcdist.data import worker_processes
from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.datasets import RecordDataset
from arcdist.data.order import Order
from arcdist.data.torch_loader import Batch, LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

BATCH = 48
MUCH = AugmentConfig(rotation_deg=10.0, color=0.5, brightness=0.3, crop=0.2, jpeg=0.2, resize=0.2)


def loader(
    path: Path,
    workers_are: str = "processes",
    workers: int = 2,
    prefetch: int = 2,
    rank: int = 0,
    world_size: int = 1,
    augment: "AugmentConfig | None" = None,
    size_at: "Callable[[int], int] | None" = None,
    policy: str = "error",
    share: float = 0.05,
) -> TorchLoader:
    dataset = RecordDataset(path)
    config = LoaderConfig(workers, prefetch, workers_are=workers_are, on_bad_record=policy, bad_share=share)
    parts = (Order(len(dataset), 7), Augment(augment or AugmentConfig(), 7), BATCH, rank, world_size)
    return TorchLoader(dataset, *parts, dataset.image_size, config, size_at=size_at)


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)


def assert_nothing_is_left() -> None:
    assert multiprocessing.active_children() == []
    assert [name for name in os.listdir("/dev/shm") if name.startswith("psm_") and _ours(name)] == []


def _ours(name: str) -> bool:
    """Return whether a shared memory is of this process, and not of another test's that runs at the same time."""
    return name in MADE


MADE: set[str] = set()


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note the shared memories that are made."""
    make = worker_processes.SharedMemory

    def noted(*args: str, **options: int) -> object:
        memory = make(*args, **options)
        MADE.add(memory.name)
        return memory

    monkeypatch.setattr(worker_processes, "SharedMemory", noted)


@pytest.mark.parametrize(("augment", "workers", "prefetch"), [(None, 3, 1), (MUCH, 2, 4), (None, 1, 0)])
def test_processes_and_threads_make_the_same_batches(
    path: Path, augment: "AugmentConfig | None", workers: int, prefetch: int
) -> None:
    def size_at(step: int) -> int:
        return 56 if step < 3 else 112

    threads = loader(path, "threads", augment=augment, size_at=size_at)
    processes = loader(path, "processes", workers, prefetch, augment=augment, size_at=size_at)
    assert_same(list(processes.batches(0, 8)), list(threads.batches(0, 8)))
    assert MADE
    assert_nothing_is_left()


def test_processes_on_other_ranks_go_on_with_the_batches_of_an_undisturbed_run(path: Path) -> None:
    whole = list(loader(path, "threads").batches(0, 10))
    for world_size in (1, 3):
        ranks = [loader(path, rank=rank, world_size=world_size, workers=1).batches(4, 10) for rank in range(world_size)]
        joined = [
            Batch(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
            for parts in zip(*ranks, strict=True)
        ]
        assert_same(joined, whole[4:])


def damage(path: Path, samples: "list[int]") -> None:
    """Overwrite the beginning of images' JPEGs with zeros."""
    with RecordDataset(path) as dataset, open(path, "r+b") as file:
        for sample in samples:
            file.seek(dataset.reader.offset(dataset.key(sample)) + 8 + 24)  # after the heads of part and record
            file.write(bytes(8))


def test_bad_records_are_replaced_as_by_threads_and_each_is_logged_and_counted_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(path, [3, 41, 77])
    logger = logging.getLogger("arcdist")  # as a run of another test may have left it
    for name, value in {"handlers": [caplog.handler], "propagate": False, "disabled": False}.items():
        monkeypatch.setattr(logger, name, value)
    threads = list(loader(path, "threads", policy="skip").batches(0, 15))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "arcdist"):
        one = loader(path, policy="skip")
        assert_same(list(one.batches(0, 15)), threads)  # three epochs
    assert len(one.bad_records) == 3
    assert sorted(message.split("record ")[1].split(":")[0] for message in caplog.messages) == ["4", "42", "78"]


def test_more_bad_records_than_allowed_end_the_run_though_no_process_has_met_so_many(path: Path) -> None:
    damage(path, [3, 41, 77])
    with pytest.raises(DataError, match=r"no JPEG.*record number 3 of 224 .*bad_share allows 2"):
        list(loader(path, workers=3, policy="skip", share=0.01).batches(0, 10))
    assert_nothing_is_left()


def test_a_damaged_image_is_named_in_place_of_its_batch(path: Path) -> None:
    position = 2 * BATCH + 5
    sample = int(Order(224, 7).samples(position, position + 1)[0])
    damage(path, [sample])
    batches = loader(path).batches(0, 100)
    assert [len(next(batches).labels) for _ in range(2)] == [BATCH, BATCH]
    with pytest.raises(DataError, match=rf"cfp_small\.rec record {sample + 1}: starts with 00"):
        next(batches)
    assert_nothing_is_left()


def test_a_file_that_is_another_one_when_the_processes_open_it_is_named(path: Path) -> None:
    one = loader(path)
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"cfp_small\.rec: had [\d_]+ bytes when it was opened"):
        next(one.batches(0, 1))
    assert_nothing_is_left()


def test_a_process_that_is_killed_is_told_at_once_and_the_others_are_ended(path: Path) -> None:
    batches = loader(path, workers=3).batches(0, 10_000)
    next(batches)
    victim = next(child for child in multiprocessing.active_children() if child.name == "loader 1")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError, match=rf"process {victim.pid} \(loader 1\) of the loader was ended by signal 9"):
        list(batches)
    assert time.monotonic() - began < 30
    assert_nothing_is_left()


def test_a_signal_that_asks_a_run_to_stop_does_not_stop_its_workers(path: Path) -> None:
    batches = loader(path).batches(0, 20)
    next(batches)
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            assert worker.pid is not None
            os.kill(worker.pid, number)
    assert len(list(batches)) == 19


def test_leaving_early_ends_the_processes(path: Path) -> None:
    for _ in (batches := loader(path, prefetch=20).batches(0, 1000)):
        break
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert_nothing_is_left()


RUN = """
import sys, time
from multiprocessing import active_children
from pathlib import Path
if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    from test_worker_processes import loader
    batches = loader(Path(sys.argv[1])).batches(0, 1000)
    next(batches)
    print(*(child.pid for child in active_children()), flush=True)
    if sys.argv[3] == "wait":
        time.sleep(600)
"""


@pytest.mark.parametrize("how", ["killed", "ends"])
def test_processes_end_with_the_one_that_started_them(path: Path, tmp_path: Path, how: str) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(path), str(Path(__file__).parent), "wait" if how == "killed" else "end"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert len(workers) == 2
        if how == "killed":
            run.kill()
        _, said = run.communicate(timeout=60)
        assert (run.returncode, said) == ((0, "") if how == "ends" else (-signal.SIGKILL, said))
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_too_little_shared_memory_is_told_before_it_is_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 100, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(DataError, match=r"takes 1 MiB of shared memory, and /dev/shm has 0 left: .*--shm-size"):
        next(loader(path).batches(0, 1))
    assert_nothing_is_left()


def test_workers_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.loader\.workers_are: 'fibers': must be one of threads, processes"):
        LoaderConfig(workers_are="fibers").validate()
    with pytest.raises(ConfigError, match=r"workers_are: 'processes', but dali has threads: data\.loader\.kind=torch"):
        LoaderConfig(kind="dali", workers_are="processes").validate()
