"""The head in other people's loops: the examples of docs/examples, run as they say."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from support import run_ranks

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
MOST_LINES = 60


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def _speakers(steps: int) -> list[float]:
    return _example("ddp_speakers.py")(steps)


def test_speakers_are_learned_alike_on_any_number_of_ranks() -> None:
    losses = {world_size: run_ranks(_speakers, world_size, 20) for world_size in (1, 2)}
    assert losses[2][0] == losses[2][1]
    torch.testing.assert_close(losses[2][0], losses[1][0], rtol=1e-4, atol=0)
    assert losses[1][0][-1] < losses[1][0][0]


def test_a_loop_of_fabric_learns_alike_on_one_and_on_two_ranks() -> None:
    alone = _example("fabric.py")(Fabric(accelerator="cpu", devices=1))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path = str(EXAMPLES / "fabric.py")
    done = subprocess.run([*command, path], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert f"loss {alone[0]:.2f} → {alone[-1]:.2f}" in done.stdout
    assert alone[-1] < 0.8 * alone[0]


def _example(name: str) -> Callable[..., list[float]]:
    return runpy.run_path(str(EXAMPLES / name))["main"]


def _vit_beside_fsdp(steps: int) -> list[float]:
    return _example("fsdp_vit.py")("vit_t", steps, 4)


def test_a_vit_in_fsdp_has_the_one_loss_on_every_rank() -> None:
    first, second = run_ranks(_vit_beside_fsdp, 2, 3)
    assert first == second
    assert len(set(first)) == 3, "its weights change"
