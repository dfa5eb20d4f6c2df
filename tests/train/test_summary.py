"""What a finished run says on the terminal."""

from pathlib import Path

import pytest
from small_runs import small_config, small_trainer


def test_a_folder_with_brackets_in_its_name_is_shown_as_it_is(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"train": {"steps": 1}, "checkpoint": {"every": 0}}
    small_trainer(small_config(tmp_path / "[/run]", faces / "train.rec", changes)).run()
    assert "/[/run]:summary.json" in "".join(capsys.readouterr().out.split())
