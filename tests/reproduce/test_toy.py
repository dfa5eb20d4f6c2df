"""The two-dimensional toy."""

import json
from pathlib import Path

import cv2

from arcdist.cli.reproduce import main
from arcdist.reproduce.toy import LOSSES


def test_the_toy_leaves_a_picture_and_the_angles_of_every_loss(tmp_path: Path) -> None:
    small = ["identities=3", "images_per_identity=4", "steps=2", "batch_size=4"]
    assert main(["toy", *small, f"picture={tmp_path}/new/toy.png", "--json", str(tmp_path / "toy.json")]) == 0
    assert min(cv2.imread(str(tmp_path / "new" / "toy.png")).shape[:2]) > 500
    angles = json.loads((tmp_path / "toy.json").read_text())
    assert list(angles) == [loss.label for loss in LOSSES]
    assert all(0 <= row["W-EC"] <= 180 for row in angles.values())
