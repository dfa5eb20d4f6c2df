"""The two-dimensional toy trains every loss from one start, and is drawn."""

import json
from pathlib import Path

import pytest
import torch

from arcdist.cli.main import main
from arcdist.errors import ConfigError
from arcdist.reproduce.toy import LOSSES, ToyConfig, train_toy


def test_every_loss_is_trained_from_one_start_and_drawn(tmp_path: Path) -> None:
    arguments = ["reproduce", "toy", "steps=1", "images=2", f"picture={tmp_path}/toys/toy.png"]
    assert main([*arguments, "--json", f"{tmp_path}/toy.json"]) == 0
    assert (tmp_path / "toys" / "toy.png").read_bytes().startswith(b"\x89PNG")
    degrees = json.loads((tmp_path / "toy.json").read_text())["degrees"]
    assert list(degrees) == list(LOSSES)
    assert all(0 < angle < 180 for each in degrees.values() for angle in each.values())


def test_people_are_told_apart_by_the_softmax_that_all_losses_begin_from(monkeypatch: pytest.MonkeyPatch) -> None:
    only = {name: LOSSES[name] for name in ("Softmax", "ArcFace, m = 0.3")}
    monkeypatch.setattr("arcdist.reproduce.toy.LOSSES", only)
    for toy in train_toy(ToyConfig(steps=25, images=6)).values():
        unit = torch.nn.functional.normalize(toy.embeddings)
        nearest = (unit @ torch.nn.functional.normalize(toy.centers).T).argmax(1)
        assert (nearest == toy.labels).float().mean() > 0.9


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps: 0"):
        train_toy(ToyConfig(steps=0))
