"""Whole runs over several sets, in balanced batches and past bad records, on several ranks and across restarts."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import losses_of_run, small_config, stop_after_four_steps, weights
from support import run_ranks

from arcdist.checkpoint.marker import CheckpointError
from arcdist.data.datasets import RecordDataset
from arcdist.errors import ConfigError


def damaged(faces: Path, folder: Path) -> Path:
    """Return a copy of the rendered set whose third and fortieth image are no images."""
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(faces / f"train{suffix}", folder)
    path = folder / "train.rec"
    with RecordDataset(path) as dataset:
        starts = [dataset.reader.offset(dataset.key(sample)) + 32 for sample in (2, 39)]
    with open(path, "r+b") as file:
        for start in starts:
            file.seek(start)
            file.write(bytes(4))
    return path


def test_a_run_that_skips_bad_records_goes_on_with_the_bits_of_one_that_was_not_stopped(
    tmp_path: Path, faces: Path
) -> None:
    path = damaged(faces, tmp_path)
    skips = {"data": {"loader": {"on_bad_record": "skip", "bad_share": 0.05}}}
    run_ranks(losses_of_run, 2, small_config(tmp_path / "whole", path, skips))
    run_ranks(stop_after_four_steps, 2, small_config(tmp_path / "cut", path, skips))
    run_ranks(losses_of_run, 2, small_config(tmp_path / "cut", path, skips))
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_triplet_loss_over_two_sets_in_balanced_batches_goes_on_with_the_same_bits(
    tmp_path: Path, faces: Path
) -> None:
    path = str(faces / "train.rec")
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(faces / f"train{suffix}", tmp_path / f"other{suffix}")
    values = {
        "data": {"path": [path, str(tmp_path / "other.rec")], "per_identity": 4},
        "losses": {"triplet": {"weight": 1.0}},
        "train": {"micro_batch_size": 12},
    }
    run_ranks(losses_of_run, 2, small_config(tmp_path / "whole", path, values))
    run_ranks(stop_after_four_steps, 2, small_config(tmp_path / "cut", path, values))
    run_ranks(losses_of_run, 2, small_config(tmp_path / "cut", path, values))
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def _refusal(config: Any) -> str:
    try:
        losses_of_run(config)
    except CheckpointError as error:
        return str(error)
    return ""


def test_resuming_with_another_order_is_refused(tmp_path: Path, faces: Path) -> None:
    run_ranks(stop_after_four_steps, 1, small_config(tmp_path, faces / "train.rec"))
    (message,) = run_ranks(_refusal, 1, small_config(tmp_path, faces / "train.rec", {"data": {"per_identity": 4}}))
    assert "cannot go on from it with another data.per_identity" in message


@pytest.mark.parametrize(("count", "key"), [(5, "global_batch_size"), (8, "micro_batch_size")])
def test_groups_that_do_not_fill_a_batch_are_refused(tmp_path: Path, count: int, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.per_identity: {count}: must divide train\.{key}"):
        small_config(tmp_path, tmp_path, {"data": {"per_identity": count}})
