"""The doctor says what a machine is like, finds what is broken, and answers by its exit code."""

import ctypes
import json
import os
import resource
import socket
import sys
from pathlib import Path

import pytest
import torch
from support import CONTEXT, run_ranks

from arcdist.cli.main import main
from arcdist.doctor.disks import look_at_data
from arcdist.doctor.examine import DoctorConfig, examine_rank
from arcdist.doctor.finding import Finding, Row, rows, worst
from arcdist.doctor.limits import look_at_limits
from arcdist.doctor.software import look_at_software
from arcdist.runtime import collectives

ALONE = {"python", "packages", "torch", "dali", "device", "cores", "memory", "data", "run folder"}
LIMITS = {"shared memory", "open files", "environment"}
BETWEEN = {"ranks", "versions", "one folder", "link"}
_CLONE_NEWNS = 0x00020000  # sched(7)


def _of(findings: list[Row], subject: str) -> Finding:
    (found,) = (row.finding for row in findings if row.finding.subject == subject)
    return found


def _told(path: Path) -> dict[str, dict]:
    return {finding["subject"]: finding for finding in json.loads(path.read_text())["findings"]}


def test_a_fit_machine_answers_0_and_leaves_every_subject_in_a_file(faces: Path, tmp_path: Path, capsys) -> None:
    about = tmp_path / "doctor.json"
    data = f"data={faces}/train.rec"
    assert main(["doctor", "device=cpu", data, f"folder={tmp_path}/runs", "--json", str(about)]) == 0
    told = _told(about)
    assert told.keys() == ALONE | LIMITS
    assert told["data"]["figures"]["faces_s"] > 0
    assert "fit to train" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"doctor.json"}


def test_ranks_of_this_machine_are_started_and_their_link_is_measured(tmp_path: Path) -> None:
    about = tmp_path / "doctor.json"
    arguments = ["doctor", "device=cpu", "ranks=2", "link_mib=1", f"folder={tmp_path}", "--json", str(about)]
    assert main(arguments) == 0
    told = _told(about)
    assert told.keys() == ALONE | LIMITS | BETWEEN
    assert told["ranks"]["found"] == "2 on 1 node, joined by gloo"
    figures = told["link"]["figures"]
    assert {name for name, value in figures.items() if value > 0} == {
        *("all_reduce_us", "all_gather_us", "all_reduce_gb_s", "all_gather_gb_s")
    }


def test_a_fault_answers_1_and_says_what_to_do(tmp_path: Path, capsys) -> None:
    assert main(["doctor", "device=cpu", f"data={tmp_path}/a[b].rec", f"folder={tmp_path}"]) == 1
    said = "".join(capsys.readouterr().out.split())
    assert "/a[b].rec:nofilethatcanberead→isitmountedonthisnode,andspelledright?" in said


def _adds_nothing(config: DoctorConfig) -> list[Row]:
    if collectives.rank() == 1:
        right = collectives.all_reduce_sum
        collectives.all_reduce_sum = lambda value: right(torch.zeros_like(value))
    return examine_rank(config)


def _has_other_versions(config: DoctorConfig, folder: Path) -> list[Row]:
    if collectives.rank() == 2:
        sys.path.insert(0, str(folder))
    return examine_rank(config)


def _sees_another_folder(config: DoctorConfig) -> list[Row]:
    if collectives.rank() == 1:
        system = ctypes.CDLL(None)
        private = 1 << 18 | 1 << 14  # mount(2): MS_PRIVATE | MS_REC
        assert system.unshare(_CLONE_NEWNS) == 0
        assert system.mount(None, b"/", None, private, None) == 0
        assert system.mount(b"none", config.folder.encode(), b"tmpfs", 0, None) == 0
    return examine_rank(config)


def _config(folder: Path) -> DoctorConfig:
    return DoctorConfig(device="cpu", folder=str(folder), link_mib=1)


def test_a_rank_that_adds_nothing_is_found(tmp_path: Path) -> None:
    found, others = run_ranks(_adds_nothing, 2, _config(tmp_path))
    assert _of(found, "ranks").verdict == "fault"
    assert "all-reduce give wrong numbers" in _of(found, "ranks").found
    assert others == []


def test_a_rank_with_other_versions_is_named(tmp_path: Path) -> None:
    about = tmp_path / "numpy-0.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.5\n")
    found = _of(run_ranks(_has_other_versions, 3, _config(tmp_path), tmp_path)[0], "versions")
    assert found.verdict == "fault"
    assert "rank 2 has numpy 0.5" in found.found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a rank a folder of its own")
def test_a_folder_that_is_not_one_for_all_ranks_is_a_fault(tmp_path: Path) -> None:
    found = _of(run_ranks(_sees_another_folder, 2, _config(tmp_path))[0], "one folder")
    assert (found.verdict, found.found) == ("fault", f"{tmp_path}: of rank 0 is not that of ranks [1]")


def _waits_alone(environment: dict[str, str], arguments: list[str]) -> None:
    os.environ.update(environment)
    sys.exit(main(arguments))


def test_ranks_that_do_not_find_each_other_are_told_with_their_interfaces(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    about = tmp_path / "doctor.json"
    arguments = ["doctor", "device=cpu", "timeout_s=1", f"folder={tmp_path}", "--json", str(about)]
    alone = CONTEXT.Process(target=_waits_alone, args=(environment, arguments))
    alone.start()
    alone.join(60)
    assert alone.exitcode == 1
    told = _told(about)
    assert told.keys() == ALONE | LIMITS | {"ranks"}
    assert f"127.0.0.1:{port}" in told["ranks"]["found"]
    assert f"{socket.gethostname()} stands for" in told["ranks"]["found"]
    assert "GLOO_SOCKET_IFNAME=" in told["ranks"]["advice"]


def _files_at_a_time(limit: int) -> tuple[str, str]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    (found,) = (finding for finding in look_at_limits(64, 0) if finding.subject == "open files")
    return found.verdict, found.advice


def test_too_few_open_files_for_so_many_ranks_are_a_fault() -> None:
    assert run_ranks(_files_at_a_time, 1, 600) == [("fault", "ulimit -n 65536")]
    assert run_ranks(_files_at_a_time, 1, 1024) == [("ok", "")]


def test_what_makes_the_link_slower_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    (found,) = (finding for finding in look_at_limits(2, 2) if finding.subject == "environment")
    assert (found.verdict, found.advice) == ("advice", "makes the ranks' link slower: unset NCCL_P2P_DISABLE")


def test_a_package_that_is_too_old_is_named_with_the_command_that_mends_it(tmp_path, monkeypatch) -> None:
    about = tmp_path / "rich-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rich\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = (one for one in look_at_software(torch.device("cpu")) if one.subject == "packages")
    assert (found.verdict, found.advice) == ("fault", "pip install 'rich>=13'")
    assert "rich 1.0" in found.found


def test_of_a_folder_the_largest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/large.rec").write_bytes(bytes(3_000_000))
    (tmp_path / "small.idx").write_bytes(b"0\t0\n")
    found = look_at_data(str(tmp_path), 0)
    assert found.found.startswith(f"{tmp_path}/deep/large.rec: ")
    assert min(found.figures.values()) > 0


def test_what_ranks_share_is_one_row_and_what_differs_names_its_ranks() -> None:
    same, slow = Finding("torch", "2.13.0"), Finding("device", "cpu", "advice", "take another")
    of_ranks = [[same, Finding("device", "gpu")], [same, slow], [same, slow], []]
    told = [(row.finding.found, row.where) for row in rows(of_ranks)]
    assert told == [("2.13.0", ""), ("gpu", "rank 0"), ("cpu", "ranks 1, 2")]
    assert worst(row.finding for row in rows(of_ranks)) == "advice"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ranks=-1"], "ranks: -1"),
        ([f"ranks={'9' * 300}"], "ranks: 9"),
        (["link_mib=0"], "link_mib: 0"),
        (["device=tpu"], "'tpu'"),
        (["disk=x"], "disk"),
    ],
)
def test_a_wrong_key_or_value_is_refused(arguments: list[str], message: str, capsys) -> None:
    assert main(["doctor", *arguments]) == 2
    assert message in capsys.readouterr().err
