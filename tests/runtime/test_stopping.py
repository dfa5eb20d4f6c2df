"""Whether a process was asked to stop."""

import subprocess
import sys

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
