"""``load_backbone``: a network as it was, from the folder or the file that its weights lie in."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from arcdist.backbones import create_backbone, load_backbone
from arcdist.errors import ConfigError, DataError

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def _trained() -> torch.nn.Module:
    torch.manual_seed(1)
    return create_backbone("tiny", embedding_dim=16)


def _saved(folder: Path, metadata: dict[str, str] | None = None) -> torch.Tensor:
    """Write weights into a folder and return what their network gives."""
    model = _trained()
    save_file(model.state_dict(), folder / "model.safetensors", metadata)
    with torch.inference_mode():
        return model.eval()(IMAGES)


@pytest.mark.parametrize("named_in", ["metadata", "config.json"])
def test_a_folder_names_its_network_in_either_place_and_gives_the_same_embeddings(
    tmp_path: Path, named_in: str
) -> None:
    if named_in == "metadata":
        expected = _saved(tmp_path, {"backbone": "tiny", "embedding_dim": "16"})
    else:
        expected = _saved(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"backbone": "tiny", "embedding_dim": 16}))
    with torch.inference_mode():
        torch.testing.assert_close(load_backbone(tmp_path)(IMAGES), expected, rtol=0, atol=0)


def test_a_loaded_network_is_in_eval_mode(tmp_path: Path) -> None:
    _saved(tmp_path, {"backbone": "tiny", "embedding_dim": "16"})
    assert not any(module.training for module in load_backbone(tmp_path).modules())


def test_weights_that_do_not_say_what_they_are_of_need_a_name(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.safetensors does not say which network it is of; add backbone=r50"):
        load_backbone(tmp_path)
    load_backbone(tmp_path, "tiny", 16)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("{", DataError, "config.json: cannot be read"),
        ("[1]", ConfigError, "does not say which network"),
        ('{"backbone": "os.mkdir"}', ConfigError, "'os.mkdir': no such backbone"),
        ('{"backbone": "tiny", "embedding_dim": 99999999}', ConfigError, "embedding_dim: 99999999: must be from 1"),
        ('{"backbone": "small", "embedding_dim": 16}', DataError, "they look like tiny with embedding_dim=16"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_refused(
    tmp_path: Path, config: str, error: type[Exception], message: str
) -> None:
    _saved(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(error, match=message):
        load_backbone(tmp_path)


def test_a_place_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no model\.safetensors"):
        load_backbone(tmp_path)
    with pytest.raises(DataError, match="absent: no such file or folder"):
        load_backbone(tmp_path / "absent")
