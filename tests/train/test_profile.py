"""``train.profile`` leaves a trace of each rank, in which a step's parts have their names, in order."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import losses_of_run, small_config
from support import run_ranks

from arcdist.errors import ConfigError
from arcdist.train.config import LoopConfig

PARTS = ["data", "backbone forward", "head", "head backward", "backbone backward", "reduce", "optimizer"]
ONE_ROUND = {"train": {"micro_batch_size": 12}}


def named_ranges(path: Path) -> list[dict[str, Any]]:
    """Return the ranges of a trace that the program has named, by their start."""
    events = json.loads(path.read_text())["traceEvents"]
    named = [event for event in events if event.get("cat") == "user_annotation" and event["ph"] == "X"]
    return sorted(named, key=lambda event: event["ts"])


def test_every_rank_leaves_the_named_parts_of_its_steps_in_order(faces: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", faces / "train.rec", ONE_ROUND, {"train": {"profile": [4, 5]}})
    told = run_ranks(losses_of_run, 2, config)
    for rank in range(2):
        events = named_ranges(tmp_path / "run" / "profile" / f"rank_{rank}.pt.trace.json")
        assert [event["name"] for event in events if event["name"] in PARTS] == 2 * PARTS
        parts = [event for event in events if event["name"] in PARTS]
        for part, following in itertools.pairwise(parts):
            assert part["ts"] + part["dur"] <= following["ts"] + 1  # in µs
        heads = [event for event in events if event["name"] == "head"]
        gathers = [event for event in events if event["name"] == "gather"]
        assert len(gathers) == 2
        for head, gather in zip(heads, gathers):
            assert head["ts"] <= gather["ts"]
            assert gather["ts"] + gather["dur"] <= head["ts"] + head["dur"]
    plain = small_config(tmp_path / "plain", faces / "train.rec", ONE_ROUND)
    assert run_ranks(losses_of_run, 2, plain)[0] == told[0]


def test_a_run_that_ends_earlier_leaves_what_it_did(faces: Path, tmp_path: Path) -> None:
    profile = {"train": {"steps": 2, "profile": [2, 50], "micro_batch_size": 24}}
    losses_of_run(small_config(tmp_path, faces / "train.rec", profile))
    events = named_ranges(tmp_path / "profile" / "rank_0.pt.trace.json")
    assert [event["name"] for event in events if event["name"] in PARTS].count("optimizer") == 1


def test_without_it_there_is_no_trace(faces: Path, tmp_path: Path) -> None:
    losses_of_run(small_config(tmp_path, faces / "train.rec", {"train": {"steps": 1}}))
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("steps", [[3], [0, 2], [5, 4], [1, 2, 3], [1, 101]])
def test_steps_that_cannot_be_traced_are_refused(steps: list[int]) -> None:
    with pytest.raises(ConfigError, match="train.profile: .* first and the last step"):
        LoopConfig(profile=steps).validate()
