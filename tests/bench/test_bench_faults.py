"""``arcdist bench faults``: what is killed, and what must come of it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from launching import ForkedLaunch

from arcdist.bench import faults_checkpoint, faults_lossy
from arcdist.bench.faults import FaultsConfig, faults
from arcdist.bench.faults_link import Host
from arcdist.bench.faults_nodes import nodes_come_and_go, rendezvous_dies
from arcdist.checkpoint.lock import RunLock
from arcdist.checkpoint.marker import CheckpointError
from arcdist.cli.main import main


def test_a_save_that_is_killed_leaves_a_whole_checkpoint_and_no_torn_one(tmp_path: Path) -> None:
    few = ["saves=6", "numbers=200000", "progress=false"]
    assert main(["bench", "faults", "saves", *few, "--json", f"{tmp_path}/k.json"]) == 0
    found = json.loads((tmp_path / "k.json").read_text())["cases"]["saves"]
    assert (found["kills"], found["torn"], found["lost"], found["back"]) == (6, 0, 0, 0)
    assert found["while_writing"] + found["new_checkpoints"] > 0


def test_a_process_that_cannot_save_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="ended by itself with 1"):
        faults_checkpoint._kill_one(tmp_path, 1, random.Random(0), 0.1, 1000)
    del held


@pytest.mark.torchrun
def test_a_run_whose_ranks_are_killed_ends_with_the_bits_of_one_that_was_left_alone() -> None:
    # Three: the sum of two does not depend on their order.
    found = faults(FaultsConfig("kills", kills=2, ranks=[3], progress=False), launch=ForkedLaunch)
    assert found["bit_identical"]
    assert found["steps_redone_max"] <= 11  # ten between checkpoints, and the one that was cut short
    assert found["cases"]["kills of 3 ranks"]["attempts"] == 3


@pytest.mark.torchrun
def test_a_node_that_joins_and_one_that_dies_change_the_number_of_ranks_and_not_what_is_learned() -> None:
    found = nodes_come_and_go([("joins", 1), ("dies", 1)], steps_to_join=100, launch=ForkedLaunch)
    assert found["nodes"] == [2, 1]
    assert found["steps_redone"][0] == 0  # the ranks are asked to stop, and save
    assert found["steps_redone_max"] <= 11
    assert found["distance"] < 1e-3


@pytest.mark.torchrun
def test_the_rendezvous_host_dies_the_other_node_ends_and_both_started_again_go_on() -> None:
    found = rendezvous_dies(launch=ForkedLaunch)
    assert found["code"] == 1
    assert found["steps_redone"] <= 11
    assert found["distance"] < 1e-3


@pytest.mark.torchrun
@pytest.mark.skipif(bool(faults_lossy.missing()), reason=faults_lossy.missing())
def test_a_link_that_loses_packets_costs_time_and_no_bit() -> None:
    def into(host: Host) -> dict[str, Any]:
        return {"environment": {"FORKED_NETWORK": host.name, "GLOO_SOCKET_IFNAME": host.interface}}

    found = faults_lossy.slow_link(launch=ForkedLaunch, into=into)
    assert found["packets_dropped"] > 0
    assert found["bit_identical"]
    assert found["survived"]
