"""What a file of weights says of its network is what it is judged by."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from arcdist.backbones import create_backbone
from arcdist.cli.evaluate import main
from arcdist.cli.main import main as verb
from arcdist.data.synthetic import SyntheticConfig, write_pairs
from arcdist.evaluate.model_source import image_size_of


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = create_backbone("tiny", 16)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {"backbone": "tiny", "embedding_dim": "16", "image_size": "32"})
    return path


def test_a_model_is_evaluated_at_the_size_that_it_was_trained_at(tmp_path: Path, weights: Path) -> None:
    pairs, found = tmp_path / "pairs.bin", {}
    write_pairs(SyntheticConfig(identities=1, image_size=32), pairs, 60, workers=1)
    for size in (0, 32, 112):
        told = tmp_path / f"{size}.json"
        assert main([str(weights), f"sets=[{pairs}]", f"image_size={size}", "--json", str(told)]) == 0
        found[size] = json.loads(told.read_text())["sets"]["pairs"]
    assert found[0] == found[32]
    assert found[0] != found[112]


def test_images_are_embedded_at_the_size_that_the_network_was_trained_at(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (32, 48):
        write_pairs(SyntheticConfig(identities=1, image_size=size), tmp_path / f"{size}.bin", 20, workers=1)
    assert verb(["embed", str(weights), str(tmp_path / "32.bin"), str(tmp_path / "faces.npy")]) == 0
    assert np.load(tmp_path / "faces.npy").shape == (40, 16)
    assert verb(["embed", str(weights), str(tmp_path / "48.bin"), str(tmp_path / "others.npy")]) != 0
    assert "32" in capsys.readouterr().err


def test_a_file_that_does_not_say_its_size_is_of_112_pixels(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(create_backbone("tiny", 16).state_dict(), path, {"backbone": "tiny"})
    assert image_size_of(str(path)) == 112
