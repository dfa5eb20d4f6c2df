"""launch/slurm/train.sbatch under a real Slurm of two nodes, both of them this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from launching import ForkedLaunch
from small_runs import weights

from arcdist.bench.faults_run import Subject

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
_absent = [program for program in PROGRAMS if not shutil.which(program, path=_PATH)]
if os.geteuid() != 0:
    _absent.append("root")

_CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=4000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=4000
PartitionName=test Nodes=ALL Default=YES MaxTime=10 State=UP
"""


class Slurm:
    """A cluster of two nodes, as long as the context lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": f"{folder}/slurm.conf"}
        self._servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        key, ports = self.folder / "munge.key", _free_ports(3)
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (self.folder / "state").mkdir()
        names = dict(zip(("controller", "first", "second"), ports), host=socket.gethostname().split(".")[0])
        (self.folder / "slurm.conf").write_text(_CONFIG.format(folder=self.folder, **names))
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._serve("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        self._until("munge", lambda: (self.folder / "munge.socket").exists())
        self._serve("slurmctld", "-D", "-c")
        for node in ("n0", "n1"):
            self._serve("slurmd", "-D", "-N", node)
        self._until("nodes", lambda: self.ask("sinfo", "--noheader", "-o", "%D %t").split() == ["2", "idle"])
        return self

    def _serve(self, *command: str) -> None:
        with (self.folder / f"{len(self._servers)}.out").open("wb") as out:
            self._servers.append(
                subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
            )

    def ask(self, *command: str) -> str:
        """Return what a program of Slurm's prints."""
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return a job's state."""
        words = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")

    def _until(self, what: str, happened, timeout_s: float = 60) -> None:
        limit = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < limit, f"{what}: {[path.read_text() for path in self.folder.glob('*.log')]}"
            time.sleep(0.1)

    def __exit__(self, *error: object) -> None:
        self.ask("scancel", "--user=root")
        self._until("jobs", lambda: not self.ask("squeue", "--noheader"))
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    (tmp_path / "slurm").mkdir()
    with Slurm(tmp_path / "slurm") as cluster:
        yield cluster


@pytest.mark.torchrun
@pytest.mark.skipif(bool(_absent), reason=f"a Slurm of its own needs {', '.join(_absent)}")
def test_a_job_stopped_before_its_limit_is_queued_again_and_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, slurm: Slurm
) -> None:
    subject = Subject(tmp_path, 200, ForkedLaunch)
    subject.undisturbed(2)
    run, log = tmp_path / "run", tmp_path / "job.log"
    slurm.environment |= {"RANKS_PER_NODE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    options = ["--parsable", "--nodes=2", "--time=8", f"--output={log}"]
    job = slurm.ask("sbatch", *options, "launch/slurm/train.sbatch", str(run), *subject._arguments())

    def steps() -> int:
        records = run / "metrics.jsonl"
        return records.read_text().count('"loss"') if records.exists() else 0

    def said() -> str:
        return log.read_text() if log.exists() else ""

    slurm._until("the job", lambda: steps() >= 3 or slurm.state(job) == "FAILED", 120)
    assert slurm.state(job) == "RUNNING", said()
    slurm.ask("scancel", "--signal=USR1", "--batch", job)  # what --signal=B:USR1@300 has Slurm do
    slurm._until("the queue", lambda: slurm.state(job) == "PENDING", 120)
    stopped = (run / "STOPPED.json").read_text()
    assert '"signal": "SIGUSR1"' in stopped, said()
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else Slurm waits some minutes
    slurm._until("the end", lambda: slurm.state(job) in ("COMPLETED", "FAILED"), 240)
    assert slurm.state(job) == "COMPLETED", said()
    assert torch.equal(weights(run), weights(tmp_path / "undisturbed"))
    assert "resumed from" in said()
