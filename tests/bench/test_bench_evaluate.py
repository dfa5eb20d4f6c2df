"""``arcdist bench evaluate``: every protocol is done at the sizes that it says."""

import json
from pathlib import Path

import pytest

from arcdist.bench.evaluation import CASES, EvaluateBenchConfig, bench_evaluate
from arcdist.cli.main import main
from arcdist.errors import ConfigError


def test_a_case_is_timed_and_its_memory_taken(tmp_path: Path) -> None:
    arguments = ["bench", "evaluate", "--quick", "cases=ijbc_11", "rounds=2", "threads=1", "progress=false"]
    assert main([*arguments, "--json", f"{tmp_path}/b.json"]) == 0
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert row["case"] == {"name": "ijbc_11", "templates": 462, "pairs": 313170, "genuine": 391, "dim": 512}
    assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"]
    assert 0 < row["peak_mib"] < row["limit_mib"] == 4096


@pytest.mark.parametrize("name", CASES)
def test_a_case_does_its_protocol_at_its_sizes(name: str, tmp_path: Path) -> None:
    found = CASES[name].prepare(CASES[name].sizes_of(quick=True), tmp_path)()
    if name == "verification":
        assert (found.pairs, found.genuine) == (120, 60)
    elif name == "ijbc_11":
        assert (found.rates.genuine, found.rates.impostor) == (391, 313170 - 391)
    elif name == "megaface":
        assert (found.probes, found.distractors) == (100, 20000)
    else:
        assert (found.genuine, found.genuine + found.impostor) == (800 * 10, 4000 * 3999 // 2)


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ConfigError, match="cases: 'lfw': must be some of verification, ijbc_11, megaface, all_to_all"):
        bench_evaluate(EvaluateBenchConfig(cases=["lfw"]), print)
