"""Whether a process was asked to stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arcdist.errors import DataError
from arcdist.runtime.stopping import FINISHED, leave_marker

_RANK = """
import os, time
begun, begins = os.pipe()
if os.fork():  # the launcher, which dies once its rank has begun
    os.read(begun, 1)
    if os.environ["LAUNCHER"] == "lives":
        os.wait()
    os._exit(0)
launcher = os.getppid()
from arcdist.runtime.stopping import StopRequest
os.write(begins, b".")
while os.environ["LAUNCHER"] == "dies" and os.getppid() == launcher:
    time.sleep(0.01)
with StopRequest() as stop:
    print(stop.signal or "goes on")
"""


def _signal_of_a_rank_whose_launcher(how: str) -> str:
    environment = {"TORCHELASTIC_RUN_ID": "some", "LAUNCHER": how}
    command = [sys.executable, "-c", _RANK]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_a_rank_whose_launcher_died_before_it_listened_is_asked_to_stop() -> None:
    assert _signal_of_a_rank_whose_launcher("dies") == "SIGTERM"
    assert _signal_of_a_rank_whose_launcher("lives") == "goes on"


def test_a_marker_for_which_there_is_no_room_leaves_no_part_of_it_and_says_so(tmp_path: Path) -> None:
    leave_marker(tmp_path, FINISHED, {"step": 1})
    (tmp_path / f".{FINISHED}.partial").symlink_to("/dev/full")
    with pytest.raises(DataError, match=rf"{FINISHED}: cannot be written: No space left on device; the run has saved"):
        leave_marker(tmp_path, FINISHED, {"step": 2})
    assert os.listdir(tmp_path) == [FINISHED]
    assert json.loads((tmp_path / FINISHED).read_text()) == {"step": 1}
