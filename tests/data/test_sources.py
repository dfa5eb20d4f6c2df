"""The training data is what its configuration says, or the difference is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from arcdist.data.sources import DataConfig
from arcdist.data.synthetic import SyntheticConfig, write_pairs, write_record
from arcdist.errors import ConfigError, DataError

FACES = SyntheticConfig(identities=2, images_per_identity=1)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a training set and a held-out set of small faces."""
    folder = tmp_path_factory.mktemp("rendered")
    write_record(replace(FACES, image_size=16), folder / "faces.rec", workers=1)
    write_pairs(replace(FACES, image_size=16), folder / "faces.bin", 20, workers=1)
    return folder


@pytest.fixture
def config(rendered: Path, tmp_path: Path) -> DataConfig:
    """Return the source of a copy of them."""
    shutil.copytree(rendered, tmp_path, dirs_exist_ok=True)
    paths = {"path": str(tmp_path / "faces.rec"), "held_out": str(tmp_path / "faces.bin")}
    config = DataConfig("synthetic", **paths, image_size=16, held_out_pairs=20, synthetic=FACES)
    config.validate()
    return config


def without_settings(config: DataConfig) -> None:
    """Remove what says how the two files were rendered."""
    for path in (config.path, config.held_out):
        Path(f"{path}.rendered.json").unlink()


def test_what_is_missing_is_rendered_in_the_size_of_the_data(config: DataConfig) -> None:
    Path(config.path).unlink()
    config.render()
    assert config.open().image_size == (16, 16)


def test_what_is_rendered_is_not_rendered_again(config: DataConfig) -> None:
    before = [Path(path).stat().st_mtime_ns for path in (config.path, config.held_out)]
    config.render()
    without_settings(config)
    config.render()
    assert [Path(path).stat().st_mtime_ns for path in (config.path, config.held_out)] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"identities": 3},
            r"data\.path: .*faces\.rec was rendered with identities=2, not 3; remove it, or",
        ),
        ({"images_per_identity": 2}, r"data\.path: .* images_per_identity=1, not 2"),
        ({"seed": 1}, r"data\.path: .* seed=0, not 1"),
    ],
)
def test_faces_that_were_rendered_otherwise_are_refused(config: DataConfig, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config, synthetic=replace(config.synthetic, **change)).render()


def test_a_held_out_set_that_was_rendered_otherwise_is_refused(config: DataConfig) -> None:
    with pytest.raises(ConfigError, match=r"data\.held_out: .*faces\.bin was rendered with pairs=20, not 40"):
        replace(config, held_out_pairs=40).render()


def test_settings_that_lack_a_key_are_of_an_earlier_drawing(config: DataConfig) -> None:
    beside = Path(f"{config.held_out}.rendered.json")
    told = json.loads(beside.read_text())
    del told["one_light_every"]
    beside.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"faces\.bin was rendered with one_light_every=0, not 3; remove it, or"):
        config.render()


def test_a_file_that_does_not_say_how_it_was_rendered_is_counted(config: DataConfig) -> None:
    without_settings(config)
    with pytest.raises(ConfigError, match="identities=2, not 3"):
        replace(config, synthetic=replace(config.synthetic, identities=3)).render()
    with pytest.raises(ConfigError, match="pairs=20, not 40"):
        replace(config, held_out_pairs=40).render()


def test_settings_that_cannot_be_read_are_named(config: DataConfig) -> None:
    Path(f"{config.path}.rendered.json").write_text("{")
    with pytest.raises(DataError, match=r"faces\.rec\.rendered\.json: cannot be read"):
        config.render()


def test_a_property_that_states_another_size_than_the_images_is_named(config: DataConfig) -> None:
    Path(config.path).with_suffix(".property").write_text("2,96,96\n")
    with pytest.raises(ConfigError, match=r"data\.image_size: 16, .* are 96×96, as faces\.property says"):
        config.open()
    with pytest.raises(DataError, match=r"faces\.property: says 96×96 pixels, but .*faces\.rec record 1 has 16×16"):
        replace(config, image_size=96).open()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": -1}, r"^data\.num_classes: -1"),
        ({"images": -1}, r"^data\.images: -1"),
        ({"image_size": 8}, r"^data\.image_size: 8"),
        ({"held_out_pairs": 30}, r"^data\.held_out_pairs: 30: must be a multiple of 20"),
        ({"synthetic": SyntheticConfig(identities=0)}, r"^data\.synthetic\.identities: 0"),
        (
            {"synthetic": SyntheticConfig(image_size=64)},
            r"^data\.synthetic\.image_size: 64, but .* is 112",
        ),
    ],
)
def test_a_value_that_cannot_be_right_is_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"source": "synthetic", "path": "train.rec", **change}).validate()
