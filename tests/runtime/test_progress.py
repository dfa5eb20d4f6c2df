"""A bar is for who looks on; what is read later has whole lines, and not thousands of them."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arcdist.train.metrics import Metrics

RUN = """
import logging, sys, torch
from pathlib import Path
from arcdist.runtime.log import set_up_log
from arcdist.train.metrics import Metrics
log = set_up_log(int(sys.argv[2]))
metrics = Metrics(Path(sys.argv[1]), 2, 10, 0, 8, quiet=sys.argv[2] != "0")
for step in range(1, 11):
    metrics.record(step, torch.tensor(1.5), 0.1, {})
    if step == 5:
        log.warning("saved step five")
metrics.close()
"""


def on_a_terminal(folder: Path, rank: int) -> str:
    """Return what a terminal gets of ten steps of one rank."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", RUN, str(folder), str(rank)]
    process = subprocess.Popen(command, stderr=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait(30) == 0, said
    return said.decode()


def test_on_a_terminal_rank_0_shows_one_bar_and_lines_stand_whole_above_it(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, 0)
    assert "\x1b[2K" in said, "a bar that is drawn again erases itself first"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    lines = [line for part in plain.split("\r\n") for line in part.split("\r")]
    assert [line.strip() for line in lines if "saved" in line] == ["saved step five"]
    assert "10/10" in lines[-2]
    assert "loss 1.500" in lines[-2]
    assert not [line for line in lines if line.startswith("step ")]


def test_on_a_terminal_other_ranks_show_none(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path, 1) == "rank 1: saved step five\r\n"


def test_into_a_pipe_goes_no_bar_even_where_colors_are_forced(tmp_path: Path) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1"}
    command = [sys.executable, "-c", RUN, str(tmp_path), "0"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stderr.splitlines()
    assert [line.partition("  ")[0] for line in said] == [
        *("step 2/10", "step 4/10", "saved step five", "step 6/10", "step 8/10", "step 10/10")
    ]


def test_a_command_draws_nothing_into_a_pipe(tmp_path: Path) -> None:
    sizes = ["identities=2", "images_per_identity=2", "image_size=32"]
    command = [sys.executable, "-m", "arcdist", "pack", "synthetic", str(tmp_path / "x.rec"), *sizes]
    environment = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_a_long_run_writes_a_thousand_lines_and_every_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("arcdist")
    for name, value in (("handlers", [handler]), ("propagate", False), ("disabled", False)):
        monkeypatch.setattr(logger, name, value)
    monkeypatch.setattr(logger, "level", logging.INFO)
    metrics = Metrics(tmp_path, 1, 1999, 0, 8, quiet=False)
    for step in range(1, 2000):
        metrics.record(step, torch.tensor(1.5), 0.1, {})
    metrics.close()
    lines = [line for line in said if line.startswith("step ")]
    assert len(lines) == 1000
    assert lines[-1].startswith("step 1999/1999")
    assert len([json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]) == 1999
