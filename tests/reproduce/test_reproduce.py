"""The paper's tables: every method can be trained, and cells that are there are not trained again."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from arcdist.cli.arguments import parse
from arcdist.cli.compose import compose_config
from arcdist.cli.reproduce import ReproduceArguments, main
from arcdist.data.evalsets import PairSet
from arcdist.errors import ConfigError
from arcdist.evaluate.genuine_people import genuine_people
from arcdist.reproduce.cell import cell_path
from arcdist.reproduce.paper import TABLES
from arcdist.reproduce.table import collect

TINY = "set=[data.synthetic.identities=6,data.synthetic.images_per_identity=4,data.held_out_pairs=20,\
data.image_size=32,train.global_batch_size=8,train.micro_batch_size=8,train.steps=2,optim.schedule.warmup_steps=0,\
data.path={0}/faces.rec,data.held_out={0}/pairs.bin,data.loader.workers=1]"

every_method = pytest.mark.parametrize(
    ("table", "method"), [(name, method) for name in ("table2", "table4") for method in TABLES[name].methods]
)


@every_method
def test_a_method_is_a_configuration_that_can_be(table: str, method: str) -> None:
    found = TABLES[table].methods[method]
    assert len(found.published) == len(TABLES[table].columns)
    recipe = {"table2": "reproduce_casia", "table4": "reproduce_scaled"}[table]
    compose_config([f"recipe={recipe}", *found.overrides, *found.then]).validate()


def test_the_commands_of_the_page_are_understood() -> None:
    page = (Path(__file__).parents[2] / "docs/reproduction.md").read_text()
    commands = re.findall(r"`arcdist reproduce (table[^`|]*)`", page)
    assert len(commands) > 6
    for command in commands:
        asked = parse(ReproduceArguments, shlex.split(command), positions=("table",))
        asked.validate()
        if asked.set:
            compose_config([f"recipe={asked.recipe}", *asked.set]).validate()


def _write_cell(folder: Path, method: str, seed: int, accuracy: float) -> None:
    path = cell_path(folder, method, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    angles = {"W-EC": 1.0, "W-Inter": None, "Intra": 2.0 + seed, "Inter": 3.0}
    path.write_text(json.dumps({"sets": {"held_out": {"accuracy": accuracy}}, "angles_deg": {"train": angles}}))


def test_a_table_gives_mean_and_std_over_the_seeds_and_names_what_is_missing(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.9, 0.92)):
        _write_cell(tmp_path, "arcface_0.5", seed, accuracy)
    found = collect(TABLES["table2"], tmp_path, range(3))
    row = found["rows"]["arcface_0.5"]
    by_seed = {"0": 90.0, "1": 92.0}
    assert row["measured"] == {"held_out": {"mean": 91.0, "std": pytest.approx(2**0.5, abs=1e-3), "by_seed": by_seed}}
    assert row["seeds"] == [0, 1]
    assert "arcface_0.5.seed2" in found["missing"]
    assert "arcface_0.5.seed1" not in found["missing"]


def test_an_angle_that_a_method_does_not_have_is_left_out(tmp_path: Path) -> None:
    _write_cell(tmp_path, "triplet", 0, 0.9)
    measured = collect(TABLES["table3"], tmp_path, [0])["rows"]["triplet"]["measured"]
    assert "W-Inter" not in measured
    assert measured["Intra1"] == {"mean": 2.0, "std": None, "by_seed": {"0": 2.0}}


def test_genuine_pairs_that_share_an_image_are_of_one_person() -> None:
    a, b, c, d, e = (bytes([number]) for number in range(5))
    pairs = PairSet([a, b, b, c, d, e, a, d], np.array([True, True, True, False]), "pairs")
    images, people = genuine_people(pairs)
    by_image = dict(zip(images, people.tolist()))
    assert by_image[a] == by_image[b] == by_image[c]
    assert by_image[d] == by_image[e] != by_image[a]


def test_cells_go_on_from_one_net_that_is_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["table2", "seeds=1", "start=3", f"folder={tmp_path}", TINY.format(tmp_path)]
    assert main([*told, "methods=[softmax]"]) == 0
    start = tmp_path / "runs" / "start" / "model.safetensors"
    assert json.loads((start.parent / "summary.json").read_text())["steps"] == 3
    before = start.stat().st_mtime_ns
    assert main([*told, "methods=[triplet]"]) == 0
    assert start.stat().st_mtime_ns == before
    told_at_start = " ".join(capsys.readouterr().err.split())
    assert told_at_start.count(f"the backbone begins with the weights of {start}") == 2
    with pytest.raises(ConfigError, match="another folder="):
        main([*told[:2], "start=0", *told[3:]])


def test_a_cell_is_trained_once_in_all_its_stages(tmp_path: Path) -> None:
    told = ["table4", "methods=[vgg_face]", "seeds=1", "start=0", f"folder={tmp_path}", TINY.format(tmp_path)]
    assert main(told) == 0
    assert not (tmp_path / "runs" / "start").exists()
    path = cell_path(tmp_path, "vgg_face", 0)
    cell = json.loads(path.read_text())
    assert cell["steps"] == 2
    assert cell["angles_deg"]["pairs"]["Intra"] > 0
    assert cell["angles_deg"]["train"]["W-EC"] is None  # its last stage has no softmax
    before = path.stat().st_mtime_ns
    assert main(told) == 0
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="another folder="):
        main([*told, "scale=30"])
