"""launch/relaunch.sh, with commands that end as runs do."""

import signal
import subprocess
import time
from pathlib import Path

RELAUNCH = Path(__file__).parent.parent.parent / "launch/relaunch.sh"


def _started(folder: Path, *ends: str) -> "subprocess.Popen[str]":
    """Start a run whose n-th launch ends as the n-th of ``ends``, and all further ones as the last."""
    (folder / "checkpoints").mkdir()
    cases = " ".join(f"{number}) {end} ;;" for number, end in enumerate(ends[:-1], 1))
    command = f"cd '{folder}'; echo >> starts; case $(wc -l < starts) in {cases} *) {ends[-1]} ;; esac"
    return subprocess.Popen(
        ["bash", RELAUNCH, folder, "bash", "-c", command],
        env={"PATH": "/usr/bin:/bin", "RELAUNCH_TRIES": "2"},
        stderr=subprocess.PIPE,
        text=True,
    )


def _starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def test_a_run_is_started_until_it_is_finished_whatever_its_launcher_answers(tmp_path: Path) -> None:
    (tmp_path / "FINISHED.json").touch()  # of an earlier run in this folder, which is now made longer
    died, stopped = "touch checkpoints/step-1; exit 9", "touch checkpoints/step-2 STOPPED.json; exit 1"
    run = _started(tmp_path, died, stopped, "touch new; mv new FINISHED.json; exit 1")
    assert (run.wait(30), _starts(tmp_path)) == (0, 3)


def test_a_signal_is_handed_on_and_ends_it_after_the_run_has_saved(tmp_path: Path) -> None:
    stops = "trap 'sleep 0.3; touch STOPPED.json; exit 1' TERM; touch ready; while :; do sleep 0.1; done"
    run = _started(tmp_path, stops)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert (run.communicate(timeout=30)[1], run.returncode) == ("", 75)
    assert (tmp_path / "STOPPED.json").exists()


def test_a_failure_that_repeats_ends_it_with_the_checkpoint_that_it_does_not_get_beyond(tmp_path: Path) -> None:
    run = _started(tmp_path, "touch checkpoints/step-000000007; exit 1")
    said = run.communicate(timeout=30)[1]
    assert (run.returncode, _starts(tmp_path)) == (1, 3)
    assert f"no newer checkpoint than '{tmp_path}/checkpoints/step-000000007'" in said


def test_a_folders_name_is_never_taken_for_a_command(tmp_path: Path) -> None:
    folder = tmp_path / "a b; touch ran; $(touch ran) `touch ran` 'x"
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    ends = ["bash", "-c", 'touch "$1/checkpoints/step-$RANDOM"; touch "$1/new"; mv "$1/new" "$1/FINISHED.json"', "run"]
    command = ["bash", RELAUNCH, folder, *ends, folder]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == 0
    assert not list(tmp_path.rglob("ran"))
