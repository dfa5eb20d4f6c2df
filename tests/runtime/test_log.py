"""Each rank has a file of what it said, and the terminal has rank 0's word and the others' warnings."""

import logging
import re
from pathlib import Path

import pytest
from support import run_ranks

from arcdist.cli.main import main
from arcdist.runtime import collectives
from arcdist.runtime.log import keep_failure, set_up_log


def say(folder: Path) -> None:
    """Say something on this rank, twice, as a run that is started again does."""
    for start in ("first", "second"):
        log = set_up_log(collectives.rank(), folder / "logs")
        log.info("%s start", start)
        log.warning("something is slow")
        logging.getLogger("arcdist.part").info("a part of it")


def test_a_rank_writes_all_that_it_says_into_its_own_file_and_goes_on_there(tmp_path: Path) -> None:
    run_ranks(say, 3, tmp_path)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"rank0.log", "rank1.log", "rank2.log"}
    for path in (tmp_path / "logs").iterdir():
        lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "", line) for line in path.read_text().splitlines()]
        starts = [
            (f"INFO {start} start", "WARNING something is slow", "INFO a part of it") for start in ("first", "second")
        ]
        assert lines == [line for start in starts for line in start]


@pytest.mark.parametrize(("rank", "heard"), [(0, "hello\nslow\n"), (2, "rank 2: slow\n")])
def test_the_terminal_hears_of_other_ranks_warnings_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rank: int, heard: str
) -> None:
    log = set_up_log(rank, tmp_path)
    log.info("hello")
    log.warning("slow")
    try:
        raise ValueError("a defect")
    except ValueError as error:
        keep_failure(error)
    assert capsys.readouterr().err == heard
    assert "Traceback" in (tmp_path / f"rank{rank}.log").read_text()
    set_up_log(0)


def test_a_run_leaves_its_log_and_why_it_ended(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [f"data.path={faces / 'train.rec'}", "data=recordio", f"folder={tmp_path / 'run'}", "backbone=tiny"]
    told += ["train.global_batch_size=8", "train.steps=1", "data.image_size=32", "evaluate.sets=[missing.bin]"]
    with pytest.raises(SystemExit):
        main(["train", *told])
    text = (tmp_path / "run" / "logs" / "rank0.log").read_text()
    assert "60 images" in text
    assert "Traceback" in text
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_costs_the_file_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    set_up_log(0, tmp_path / "file" / "logs").info("hello")
    set_up_log(0)
