"""``arcdist bench guards``: what looking after a run costs."""

import json
from pathlib import Path

import pytest

from arcdist.bench.guards import GuardsConfig
from arcdist.cli.main import main
from arcdist.errors import ConfigError


def test_each_guard_is_timed_beside_the_step_that_it_guards(tmp_path: Path) -> None:
    small = ["backbone=tiny", "classes=20", "batch=4", "rounds=1", "steps=2", "progress=false"]
    assert main(["bench", "guards", *small, "--json", f"{tmp_path}/g.json"]) == 0
    result = json.loads((tmp_path / "g.json").read_text())
    assert set(result["guards"]) == {"void steps", "hang watch", "slowest rank", "comparing ranks"}
    for guard in result["guards"].values():
        assert guard["share"] == pytest.approx(
            guard["median_s"] / guard["every"] / result["step"]["median_s"], abs=2e-6
        )
    assert 0 < result["guards"]["void steps"]["median_s"] < result["step"]["median_s"]
    assert result["deterministic"]["times"] > 0


def test_ranks_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch: 3: must be a multiple of ranks, 2"):
        GuardsConfig(batch=3).validate()
