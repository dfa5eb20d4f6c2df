"""Ranks that are slower than the others, or hold other values."""

import json
import logging
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import disturb, small_config, small_trainer
from support import run_ranks

from arcdist.data.torch_loader import Batch
from arcdist.heads.config import PartialFCConfig
from arcdist.runtime import collectives
from arcdist.runtime.agreement import DriftError, check_agreement
from arcdist.train.config import TrainConfig
from arcdist.train.stragglers import Stragglers


def _drifted(config: TrainConfig, part: str) -> str:
    """Do a run in which a number on rank 1 moves by one unit in the last place before step 3; return what it said."""
    trainer = small_trainer(config)

    def nudge(step: int, batch: Batch) -> Batch:
        if step == 3 and collectives.rank() == 1 and part:
            weight = next(getattr(trainer.step, part).parameters()).detach()
            first = (0,) * weight.ndim
            weight[first] = torch.nextafter(weight[first], torch.tensor(torch.inf))
        return batch

    disturb(trainer, nudge)
    try:
        trainer.run()
    except DriftError as error:
        return str(error)
    return ""


def test_one_unit_in_the_last_place_of_one_ranks_weights_stops_the_run_before_it_is_saved(
    tmp_path: Path, faces: Path
) -> None:
    config = small_config(tmp_path / "apart", faces / "train.rec")
    for said in run_ranks(_drifted, 3, config, "backbone"):
        assert "step 4: the ranks have drifted apart in " in said
        assert "backbone.conv1.weight (of rank 1)" in said
    assert [path.name for path in (tmp_path / "apart/checkpoints").glob("step-*")] == ["step-000000002"]
    assert run_ranks(_drifted, 2, small_config(tmp_path / "whole", faces / "train.rec"), "") == ["", ""]
    records = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records if "slowest_rank" in record} == {1, 2, 3, 4, 5, 6}


def test_centers_that_differ_between_groups_of_ranks_stop_the_run(tmp_path: Path, faces: Path) -> None:
    config = small_config(tmp_path, faces / "train.rec")
    config = replace(config, head=PartialFCConfig(group_size=2), train=replace(config.train, micro_batch_size=2))
    for said in run_ranks(_drifted, 4, config, "head"):
        assert "part 1 of head.centers (no two of ranks 1, 3 agree)" in said
        assert "part 0" not in said
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-000000002"]
    assert run_ranks(_drifted, 4, replace(config, folder=str(tmp_path / "whole")), "") == [""] * 4


def _compare() -> list[str]:
    rank, said = collectives.rank(), []
    same = {"a": torch.arange(5.0), "b": torch.tensor(True), "c": torch.zeros(0), "d": torch.ones(2, 2).bfloat16()}
    check_agreement(same, 7)
    for tensors, step in (
        ({**same, "b": torch.tensor(rank != 2)}, 7),
        ({**same, "d": torch.full((2, 2), float(rank)).bfloat16()}, 7),
        (same, 7 + (rank == 0)),
    ):
        with pytest.raises(DriftError) as raised:
            check_agreement(tensors, step)
        said.append(str(raised.value))
    return said


def test_what_differs_and_on_which_rank_is_named() -> None:
    for flag, number, step in run_ranks(_compare, 3):
        assert "in 1 of 5 things: b (of rank 2);" in flag
        assert "d (no two of ranks 0, 1, 2 agree);" in number
        assert "the number of steps (of rank 0);" in step


def _slow() -> tuple[list[str], list[dict[str, float]]]:
    """Return the warnings and the reports of a rank among three of which rank 1 is slow."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("arcdist")
    logger.addHandler(handler)
    logger.disabled = False
    stragglers, reports = Stragglers(torch.device("cpu")), []
    for step in range(1, 5):
        with stragglers.alone():
            time.sleep(0.5 if collectives.rank() == 1 else 0)
        stragglers.waited(0)
        reports.append(stragglers.report(step))
    return said, reports


def test_a_rank_without_others_keeps_no_times() -> None:
    stragglers = Stragglers(torch.device("cpu"))
    before = dict(vars(stragglers))
    with stragglers.alone():
        pass
    stragglers.waited(1)
    assert stragglers.report(1) == {}
    assert vars(stragglers) == before


def test_a_rank_that_is_slow_in_three_reports_is_named_once_with_its_host() -> None:
    (first, reports), (second, _), _ = run_ranks(_slow, 3)
    assert [line.split(":")[0] for line in first] == ["step 3"]
    assert f"rank 1 on {socket.gethostname()} is slow" in first[0]
    assert second == []
    assert [report["slowest_rank"] for report in reports] == [1] * 4
    assert all(report["slowest_rank_times"] > 1.5 for report in reports)
