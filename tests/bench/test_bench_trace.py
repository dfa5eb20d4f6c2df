"""``arcdist bench picture`` draws a step of every rank from real traces, and refuses what is none."""

import json
from pathlib import Path

import pytest
from small_runs import losses_of_run, small_config
from support import run_ranks

from arcdist.bench.trace import PARTS
from arcdist.cli.main import main


def test_a_picture_shows_one_step_of_both_ranks(faces: Path, tmp_path: Path) -> None:
    profile = {"train": {"profile": [4, 5], "micro_batch_size": 12}}
    run_ranks(losses_of_run, 2, small_config(tmp_path / "run", faces / "train.rec", profile))
    picture = tmp_path / "step.png"
    arguments = [f"{tmp_path}/run", f"picture={picture}", "step=2", "--json", f"{tmp_path}/step.json"]
    assert main(["bench", "picture", *arguments]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    ranks = json.loads((tmp_path / "step.json").read_text())["ranks"]
    assert len(ranks) == 2
    assert all(rank[part] > 0 for rank in ranks for part in (*PARTS, "collectives"))
    assert main(["bench", "picture", f"{tmp_path}/run", "step=3"]) == 2


def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "picture", str(tmp_path)]) == 1
    assert "holds no rank_N.pt.trace.json; train with train.profile" in capsys.readouterr().err
    (tmp_path / "rank_0.pt.trace.json").write_text('{"traceEvents": [')
    assert main(["bench", "picture", str(tmp_path)]) == 1
    assert "is no trace of torch.profiler" in capsys.readouterr().err
