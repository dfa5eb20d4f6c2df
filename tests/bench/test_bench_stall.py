"""``arcdist bench stall``: what a save costs the step that it comes after."""

import json
from pathlib import Path

import pytest

from arcdist.bench.stall import StallConfig, bench_stall
from arcdist.cli.main import main
from arcdist.errors import ConfigError


def test_every_kind_of_save_is_timed_in_every_round(tmp_path: Path) -> None:
    assert main(["bench", "stall", "mib=2", "rounds=2", "progress=false", "--json", f"{tmp_path}/s.json"]) == 0
    result = json.loads((tmp_path / "s.json").read_text())
    assert {kind: len(seconds) for kind, seconds in result["seconds"].items()} == {
        "background": 2,
        "synchronous": 2,
        "unchecked": 2,
    }
    assert result["share"] > 0


def test_nothing_to_save_is_refused() -> None:
    with pytest.raises(ConfigError, match="mib: 0"):
        bench_stall(StallConfig(mib=0))
