"""Ranks that were started with other things than each other."""

import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import small_config, small_trainer
from support import run_ranks

from arcdist.data.synthetic import SyntheticConfig, write_record
from arcdist.runtime import collectives
from arcdist.runtime.agreement import DifferentStartError


def _refused(folder: Path, rec: Path, changes: list[dict[str, Any]]) -> str:
    with pytest.raises(DifferentStartError) as raised:
        small_trainer(small_config(folder, rec, changes[collectives.rank()]))
    return str(raised.value)


def test_a_rank_with_another_configuration_stops_all_before_anything_is_done(tmp_path: Path, faces: Path) -> None:
    changes = [{"runtime": {"threads": 2}}, {"optim": {"lr": 0.5}}, {}]  # threads are of a node
    for said in run_ranks(_refused, 3, tmp_path / "run", faces / "train.rec", changes):
        head, *lines = said.splitlines()
        assert head.startswith("the ranks were not started alike")
        assert len(lines) == 1
        assert lines[0].startswith("  optim.lr: 0.001 (rank 0 on ")
        assert " and 1 more), 0.5 (rank 1 on " in lines[0]
    assert not (tmp_path / "run").exists()


def _refused_in(folders: list[Path]) -> str:
    """Open what is called set.rec in a folder of this rank's."""
    os.chdir(folders[collectives.rank()])
    with pytest.raises(DifferentStartError) as raised:
        small_trainer(small_config(folders[0] / "run", Path("set.rec")))
    return str(raised.value)


def test_a_node_with_other_images_of_the_same_name_stops_all(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        faces = SyntheticConfig(identities=4, images_per_identity=3, image_size=32, seed=seed)
        write_record(faces, tmp_path / str(seed) / "set.rec", workers=1)
    for said in run_ranks(_refused_in, 2, [tmp_path / "0", tmp_path / "1"]):
        assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["  a few images"]
