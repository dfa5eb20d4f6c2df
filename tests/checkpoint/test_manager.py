"""Checkpoints: whole or not there, and the same on any number of ranks."""

import hashlib
import multiprocessing
import os
import pickle
import random
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import run_ranks
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from arcdist.checkpoint import retention
from arcdist.checkpoint.commit import Save
from arcdist.checkpoint.folder import newest_checkpoint
from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import MARKER, CheckpointError, read_marker, write_marker
from arcdist.checkpoint.reader import load
from arcdist.checkpoint.space import look_at
from arcdist.checkpoint.state import training_tensors
from arcdist.checkpoint.writer import CheckedWriter
from arcdist.errors import ConfigError, NewerError
from arcdist.optim import OptimConfig
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

DIM = 4


def _parts(classes: int, seed: int) -> tuple[nn.Module, nn.Parameter, torch.optim.Optimizer]:
    """Return a backbone, this rank's centers and their optimizer; their values depend on the seed, not on ranks."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, DIM), nn.BatchNorm1d(DIM))
    rows = shard_rows(classes, collectives.rank(), collectives.world_size())
    everyones = torch.randn(2, classes, DIM)
    centers = nn.Parameter(everyones[0, rows.start : rows.stop].clone())
    optimizer = OptimConfig().build(net, centers)
    optimizer.state[centers]["momentum_buffer"].copy_(everyones[1, rows.start : rows.stop])
    return net, centers, optimizer


def _save(folder: Path, classes: int, step: int = 5, keep: int = 2) -> None:
    net, centers, optimizer = _parts(classes, seed=step)
    manager = CheckpointManager(folder, CheckpointConfig(keep=keep))
    manager.save(step, training_tensors(net, centers, classes, optimizer), {"config": {"a": 1}}, wait=True)
    if fault := manager.wait():
        raise CheckpointError(fault)


def _load(folder: Path, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return backbone, centers and momentum as loaded into parts that held other values."""
    net, centers, optimizer = _parts(classes, seed=99)
    load(folder, training_tensors(net, centers, classes, optimizer))
    return net[0].weight.detach(), centers.detach(), optimizer.state[centers]["momentum_buffer"]


@pytest.mark.parametrize("classes", [5, 1003])
@pytest.mark.parametrize("saved_on", [1, 2, 3, 4])
def test_a_checkpoint_loads_bit_for_bit_on_any_number_of_ranks(tmp_path: Path, classes: int, saved_on: int) -> None:
    run_ranks(_save, saved_on, tmp_path, classes)
    net, centers, optimizer = _parts(classes, seed=5)
    for loaded_on in (1, 2, 3, 4):
        ranks = run_ranks(_load, loaded_on, tmp_path / "step-000000005", classes)
        assert all(torch.equal(weight, net[0].weight) for weight, _, _ in ranks)
        assert torch.equal(torch.cat([rows for _, rows, _ in ranks]), centers)
        momentum = optimizer.state[centers]["momentum_buffer"]
        assert torch.equal(torch.cat([rows for _, _, rows in ranks]), momentum)


def _kept(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def test_the_newest_whole_one_is_found_and_the_oldest_are_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        _save(tmp_path, 5, step, keep=3)
    assert _kept(tmp_path) == [2, 3, 10]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000010"


def test_going_back_to_an_older_one_drops_the_newer_of_the_history_that_was_left(tmp_path: Path) -> None:
    for step in (500, 600, 300):
        _save(tmp_path, 5, step)
    assert _kept(tmp_path) == [300]


def test_a_checkpoints_metadata_runs_nothing(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    folder = tmp_path / "step-000000005"
    hostile = pickle.dumps(_Hostile(str(tmp_path / "ran")))
    (folder / ".metadata").write_bytes(hostile)
    marker = read_marker(folder)
    marker["files"][".metadata"] = {"bytes": len(hostile), "sha256": hashlib.sha256(hostile).hexdigest()}
    write_marker(folder, marker)
    with pytest.raises(CheckpointError, match=r"asks for posix\.mkdir"):
        _load(folder, 5)
    assert not (tmp_path / "ran").exists()


class _Hostile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("content", ["[]", "null", '{"format": 2, "step": 3}'])
def test_a_marker_of_another_kind_is_passed_over(tmp_path: Path, content: str) -> None:
    _save(tmp_path, 5, 1)
    _save(tmp_path, 5, 2)
    (tmp_path / "step-000000002" / MARKER).write_text(content)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000001"


@pytest.mark.parametrize("keys", [[[]], [1], "all"])
def test_a_marker_that_lists_no_names_is_passed_over(tmp_path: Path, keys: object) -> None:
    _save(tmp_path, 5, 1)
    _save(tmp_path, 5, 2)
    newest = tmp_path / "step-000000002"
    write_marker(newest, {**read_marker(newest), "keys": keys})
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000001"


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "no marker", "torn marker"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    _save(tmp_path, 5, 1)
    _save(tmp_path, 5, 2)
    newest = tmp_path / "step-000000002"
    tensors = next(newest.glob("*.distcp"))
    if damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    elif damage == "flip":
        content = bytearray(tensors.read_bytes())
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    elif damage == "remove":
        tensors.unlink()
    elif damage == "no marker":
        (newest / MARKER).unlink()
    else:
        (newest / MARKER).write_text((newest / MARKER).read_text()[:50])
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000001"
    with pytest.raises(CheckpointError):
        _load(newest, 5)


def test_a_flipped_bit_of_any_file_is_named_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    _save(tmp_path, 5, 1)
    _save(tmp_path, 5, 2)
    newest, draws = tmp_path / "step-000000002", random.Random(0)
    files = sorted(newest.iterdir())
    assert [path.name for path in files] == [".metadata", MARKER, "__0_0.distcp", "model.safetensors"]
    for path in files:
        whole = path.read_bytes()
        for bit in [draws.randrange(8 * len(whole)) for _ in range(100)]:
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert newest_checkpoint(tmp_path) == tmp_path / "step-000000001", (path.name, bit)
            with pytest.raises(CheckpointError, match=re.escape(path.name)):
                _load(newest, 5)
        path.write_bytes(whole)
    assert newest_checkpoint(tmp_path) == newest


def _found(folder: Path) -> Path | None:
    return CheckpointManager(folder, CheckpointConfig()).find("auto")


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_only_whole_one_among_damaged_ones_is_found_by_every_rank(tmp_path: Path, world_size: int) -> None:
    for step in range(1, 6):
        _save(tmp_path, 5, step, keep=5)
    second, third, fourth, fifth = (tmp_path / f"step-{step:09d}" for step in range(2, 6))
    (second / ".metadata").write_bytes(b"")
    (third / "model.safetensors").unlink()
    os.truncate(fourth / "__0_0.distcp", 100)
    (fifth / MARKER).unlink()
    assert run_ranks(_found, world_size, tmp_path) == [tmp_path / "step-000000001"] * world_size


def test_a_folder_that_was_being_written_never_counts(tmp_path: Path) -> None:
    _save(tmp_path, 5, 1)
    (tmp_path / "step-000000001").rename(tmp_path / ".writing-step-000000001")
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "step-000000002.tmp").mkdir()
    assert newest_checkpoint(tmp_path) is None


def test_a_checkpoint_of_another_model_names_what_differs(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    net, centers, _ = _parts(5, 0)
    adamw = OptimConfig("adamw").build(net, centers)
    with pytest.raises(CheckpointError, match=r"tensors are missing .*exp_avg"):
        load(tmp_path / "step-000000005", training_tensors(net, centers, 5, adamw))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    folder = tmp_path / "step-000000005"
    write_marker(folder, read_marker(folder) | {"format": 3})
    with pytest.raises(NewerError, match="format 3, but this arcdist reads format 2"):
        read_marker(folder)
    with pytest.raises(NewerError):  # not passed over: a run that began anew would write over it
        CheckpointManager(tmp_path, CheckpointConfig()).find("auto")


def _save_where_it_cannot_be() -> str:
    try:
        _save(Path("/proc/none"), 5)
    except CheckpointError as error:
        return str(error)
    return "saved"


def test_a_save_that_fails_is_told_on_every_rank_and_leaves_the_group_usable() -> None:
    for answer in run_ranks(_save_where_it_cannot_be, 2):
        assert "cannot be written" in answer


def _save_with_a_defect_on_rank_1(folder: Path) -> tuple[str | None, str | None]:
    net, centers, optimizer = _parts(11, seed=1)
    manager = CheckpointManager(folder, CheckpointConfig())
    tensors = training_tensors(net, centers, 11, optimizer)
    faults, check = [], CheckedWriter.check
    if collectives.rank() == 1:
        CheckedWriter.check = lambda writer: {}["a defect"]
    for step in (1, 2):
        manager.save(step, tensors, {"config": {}}, wait=True)
        faults.append(manager.wait())
        CheckedWriter.check = check
    return faults[0], faults[1]


def test_a_defect_on_one_writing_rank_is_told_on_every_rank_at_once_and_the_next_save_is_written(tmp_path) -> None:
    for first, second in run_ranks(_save_with_a_defect_on_rank_1, 2, tmp_path):
        assert "cannot be written ('a defect')" in str(first)
        assert second is None
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000002"


def _go_back_after_a_lost_save(folder: Path) -> tuple[str | None, Path | None, str | None]:
    net, centers, optimizer = _parts(11, seed=1)
    manager = CheckpointManager(folder, CheckpointConfig(timeout_s=1))
    tensors = training_tensors(net, centers, 11, optimizer)
    manager.save(1, tensors, {"config": {}}, wait=True)
    write = Save._write_files

    def late(save: Save, aside: Path, first: bool) -> dict[str, dict[str, Any]]:
        time.sleep(2.5)
        return write(save, aside, first)

    with pytest.MonkeyPatch.context() as patch:
        if collectives.rank() == 1:
            patch.setattr(Save, "_write_files", late)
        manager.save(2, tensors, {"config": {}})
        lost = manager.wait()
    newest = manager.newest(folder)
    manager.save(3, tensors, {"config": {}}, wait=True)
    return lost, newest, manager.wait()


def test_after_a_save_in_which_ranks_lost_each_other_the_run_can_go_back_and_save(tmp_path: Path) -> None:
    for lost, newest, fault in run_ranks(_go_back_after_a_lost_save, 2, tmp_path):
        assert "not written: " in str(lost)
        assert newest == tmp_path / "step-000000001"
        assert fault is None
    assert _kept(tmp_path) == [1, 3]


def _save_on_a_slow_disk(folder: Path) -> tuple[bool, bool, list[int]]:
    """Begin a save, change every tensor and ask for two more before a byte of it is written.

    Returns whether the first holds what was there when it began, whether the last holds the changed, and the steps.
    """
    net, centers, optimizer = _parts(1003, seed=1)
    tensors = training_tensors(net, centers, 1003, optimizer)
    live = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors.values()]
    before = [tensor.detach().clone() for tensor in live]
    manager = CheckpointManager(folder, CheckpointConfig(keep=3))
    free, write = threading.Event(), Save.write

    def held(save: Save) -> str | None:
        assert free.wait(60)
        return write(save)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Save, "write", held)
        manager.save(1, tensors, {"config": {}})
        for tensor in live:
            tensor.fill_(7)
        manager.save(2, tensors, {"config": {}})
        threading.Timer(0.2, free.set).start()
        manager.save(3, tensors, {"config": {}}, wait=True)
    collectives.barrier()
    load(folder / "step-000000003", tensors)
    last = all(bool((tensor == 7).all()) for tensor in live)
    load(folder / "step-000000001", tensors)
    return all(map(torch.equal, live, before)), last, _kept(folder)


def test_a_save_that_is_given_up_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, centers, optimizer = _parts(11, seed=1)
    manager, free = CheckpointManager(tmp_path, CheckpointConfig()), threading.Event()
    monkeypatch.setattr(Save, "write", lambda save: None if free.wait(60) else "never freed")
    manager.save(1, training_tensors(net, centers, 11, optimizer), {"config": {}})
    assert manager.wait(timeout_s=0.05) == f"{tmp_path}: not written: the disk takes too long"
    free.set()
    assert manager.wait() is None


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_changes_after_a_save_has_begun_is_not_in_it_and_no_save_overtakes_another(tmp_path, world_size) -> None:
    assert run_ranks(_save_on_a_slow_disk, world_size, tmp_path) == [(True, True, [1, 3])] * world_size


def _die_at(function: str, folder: Path) -> None:
    pytest.MonkeyPatch().setattr(function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    _save(folder, 5, 3)


@pytest.mark.parametrize("function", ["arcdist.checkpoint.folder.remove", "shutil.rmtree"])
def test_death_before_older_ones_are_removed_leaves_the_new_one_and_the_next_save_removes_them(
    tmp_path: Path, function: str
) -> None:
    _save(tmp_path, 5, 1)
    _save(tmp_path, 5, 2)
    process = multiprocessing.get_context("forkserver").Process(target=_die_at, args=(function, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000003"
    _save(tmp_path, 5, 4)
    assert _kept(tmp_path) == [3, 4]
    assert not list(tmp_path.glob(".[tw]*"))


def test_keeping_fewer_than_two_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.keep: 1"):
        CheckpointConfig(keep=1).validate()


def test_the_best_and_every_nth_stay_beside_the_newest() -> None:
    def marked(steps: dict[int, float | None]) -> dict[Path, dict]:
        return {
            Path(f"step-{step:09d}"): {"step": step, "metrics": {} if value is None else {"lfw.accuracy": value}}
            for step, value in steps.items()
        }

    found = marked({1: 0.5, 2: 0.9, 3: 0.8, 4: None, 5: 0.9, 6: None, 7: None, 9: None})
    dropped = retention.too_many(found, Path("step-000000007"), keep=2, keep_every=4, metric="lfw.accuracy")
    assert [int(path.name[5:]) for path in dropped] == [1, 3, 5, 9]
    assert retention.beats("lfw.accuracy", 0.95, found)
    assert not retention.beats("lfw.accuracy", 0.9, found)


def test_a_folder_without_room_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint is about"):
        look_at(tmp_path, size=10**18, keep=2)
