"""Joining the ranks, or saying why they cannot be."""

import logging
import os
import socket
from pathlib import Path

import pytest
import torch
from support import CONTEXT

from arcdist.errors import ConfigError
from arcdist.runtime import collectives, world
from arcdist.runtime.precision import choose_precision, choose_products
from arcdist.runtime.world import RuntimeConfig, WorldError, open_world


def test_without_a_launcher_the_world_is_one_process_and_opens_no_port() -> None:
    alone = open_world(RuntimeConfig(device="cpu"))
    assert (alone.rank, alone.size, alone.device.type) == (0, 1, "cpu")
    assert not collectives.is_distributed()


def test_a_port_in_use_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(WorldError, match=rf"{port}.*port"):
            open_world(RuntimeConfig(device="cpu", timeout_s=5))


def test_a_missing_peer_is_said_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(WorldError, match="are all ranks started"):
        open_world(RuntimeConfig(device="cpu", timeout_s=2))


def _named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": name, "MASTER_PORT": port}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b"])
def test_a_first_host_without_an_address_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _named(monkeypatch, name)
    with pytest.raises(WorldError, match=rf"'{name}', the host of rank 0, has no address on .*--local-addr=ADDRESS"):
        open_world(RuntimeConfig(device="cpu", timeout_s=1))


def test_a_first_host_that_gets_its_address_a_little_later_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolve, asked = socket.getaddrinfo, []

    def late(name: str, *rest: object, **named: object) -> object:
        asked.append(name)
        if name == "first" and len(asked) < 3:
            raise socket.gaierror("not yet")
        return resolve("127.0.0.1" if name == "first" else name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    monkeypatch.setattr(world, "_NAMING_S", 0.0)
    monkeypatch.setattr(logging.getLogger("arcdist"), "propagate", True)
    world._wait_for_name("first", 0, 2.0)
    assert asked == ["first"] * 3
    assert "'first', the host of rank 0, has no address here yet; waiting at most 2 s" in caplog.text


def test_a_network_interface_that_is_not_there_is_said_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for key, value in {**place, "GLOO_SOCKET_IFNAME": "nosuch0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(WorldError, match=r"nosuch0.* has (.*, )?lo.*; GLOO_SOCKET_IFNAME is nosuch0, and chooses one"):
        open_world(RuntimeConfig(device="cpu", timeout_s=5))


def _join_what_does_not_answer(port: int, said: Path) -> None:
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    os.environ.update({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    world._ANSWERING_S = 1.0
    open_world(RuntimeConfig(device="cpu", timeout_s=1))


def test_a_program_that_hears_and_does_not_answer_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        rank = CONTEXT.Process(target=_join_what_does_not_answer, args=(port, tmp_path / "said.txt"), daemon=True)
        rank.start()
        rank.join(60)
        rank.kill()
    assert rank.exitcode == 1
    assert f"rank 1 of 2 cannot join the run at 127.0.0.1:{port}" in (tmp_path / "said.txt").read_text()


def test_a_rank_that_was_restarted_into_the_dead_ranks_store_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for key, value in {**told, "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(WorldError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        open_world(RuntimeConfig(device="cpu"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("device", "tpu"), ("threads", -1), ("timeout_s", 0), ("timeout_s", 10**10), ("step_timeout_s", 10**9)],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"runtime.{key}"):
        RuntimeConfig(**{key: value}).validate()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_where_there_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime.device: 'cuda'"):
        RuntimeConfig(device="cuda").validate()


def test_products_are_narrow_only_in_a_narrow_run_and_on_a_gpu_always_then() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_products("fp32", cpu) == choose_products("fp32", gpu) == "fp32"
    assert choose_products("bf16", gpu) == choose_products("fp16", gpu) == "bf16"
    assert choose_products("bf16", cpu) in ("fp32", "bf16")


def test_auto_precision_is_one_that_can_be_computed_in() -> None:
    assert choose_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    with pytest.raises(ConfigError, match="int8"):
        choose_precision("int8", torch.device("cpu"))
