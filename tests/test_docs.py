"""The site of docs/ builds, says every key, and does not build where something that it refers to is not there."""

import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import recipe_costs
from architecture_pictures import PICTURES
from configuration_page import configuration_page
from make_site import build, is_installed
from make_site import main as make_site
from recipe_costs import cost, network, recipes
from recipes_page import PUBLISHED, recipes_page

from arcdist.bench.plan import Cluster
from arcdist.bench.plan_network import BackboneCost, backbone_cost
from arcdist.cli.compose import check_overrides, compose_config, groups
from arcdist.cli.keys import keys_of
from arcdist.cli.main import VERBS, main
from arcdist.margins import MARGINS
from arcdist.train.config import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
CONFIGURATION = """site_name: a
docs_dir: docs
site_dir: site
theme: {variant: classic, font: false}
plugins: [search, {mkdocstrings: {handlers: {python: {paths: [.]}}}}]
nav: [index.md]
"""


builds = pytest.mark.skipif(not is_installed(), reason="zensical is not installed; it needs Python 3.11.5")


@builds
def test_the_site_is_built_strictly_with_all_its_pages(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs/site/make_site.py", tmp_path / "site"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stdout + made.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"configuration", "recipes"}
    assert all((tmp_path / f"site/{page}/index.html").is_file() for page in pages)
    assert "make demo" in (tmp_path / "site/index.html").read_text()  # of README's first screen


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.md").write_text("of somebody")
    for out in (tmp_path, tmp_path / "kept.md"):
        assert make_site(out) == 1
        assert "is there and no site; it is not replaced" in capsys.readouterr().err
    assert (tmp_path / "kept.md").read_text() == "of somebody"


def _site(folder: Path, page: str) -> Path:
    (folder / "docs").mkdir()
    (folder / "docs/index.md").write_text(page)
    (folder / "mkdocs.yml").write_text(CONFIGURATION)
    return folder


@builds
def test_a_site_without_faults_has_none(tmp_path: Path) -> None:
    assert build(_site(tmp_path, "# Title\n\n[here](#title) [there](index.md#title)\n")) == []


@builds
@pytest.mark.parametrize(
    ("page", "faults"),
    [
        ("[a](nowhere.md) [b](#nowhere)", ["page does not exist", "anchor does not exist"]),
        ('![a](nowhere.png) <img src="nowhere.jpg">', ["nowhere.png: is not there", "nowhere.jpg: is not there"]),
        ("::: nowhere.Nothing", ["Could not collect 'nowhere.Nothing'"]),
    ],
)
def test_what_is_referred_to_must_be_there(page: str, faults: list[str], tmp_path: Path) -> None:
    said = "\n".join(build(_site(tmp_path, page)))
    assert all(fault in said for fault in faults), said


def test_the_navigation_has_every_page_and_no_other(tmp_path: Path) -> None:
    _site(tmp_path, "# Title")
    (tmp_path / "docs/orphan.md").write_text("# Orphan")
    (tmp_path / "mkdocs.yml").write_text(CONFIGURATION.replace("index.md", "index.md, gone.md"))
    missing, orphan = build(tmp_path)
    assert "gone.md: no such page" in missing
    assert "docs/orphan.md: is not in the navigation" in orphan


def test_the_reference_has_every_key_choice_and_margin() -> None:
    page = configuration_page()
    lines = page.splitlines()
    for key in keys_of(TrainConfig):
        rows = [line for line in lines if line.startswith(f"| `{key.name}` |")]
        assert rows, f"{key.name} is not on the page"
        meaning = key.help.rpartition(" [")[0] if key.kind else key.help
        assert any(meaning.replace("|", "\\|") in row for row in rows)
    for group, choices in groups().items():
        assert f"### {group}\n" in page
        assert all(f"`{choice}`" in page for choice in choices)
    assert all(f"#### margin: {name}\n" in page for name in MARGINS)


@pytest.mark.parametrize("recipe", ["casia_r50", "webface42m_pfc03_vit_b", "demo"])
def test_the_page_of_recipes_says_what_a_recipe_composes_to(recipe: str) -> None:
    config = compose_config([f"recipe={recipe}"])
    page = recipes_page()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{recipe}` | ") and " × " in line]
    batch = config.train.global_batch_size, config.train.micro_batch_size
    assert f"| {config.backbone.name} |" in row
    assert f"| {batch[0] // batch[1]} × {batch[1]} |" in row
    assert f"| {config.optim.lr:g}, {config.optim.weight_decay:g} |" in row
    margins = [f"{key} {getattr(config.margin, key):g}" for key in ("m2", "m3") if getattr(config.margin, key)]
    assert f", {', '.join(margins)}, s {config.margin.scale:g}" in row
    assert f"{config.train.steps:,} steps" in row or f"{config.train.epochs:g} epochs" in row
    assert not config.data.num_classes or f"{config.data.num_classes:,} classes, {config.data.images:,} images" in page


def test_the_costs_of_the_recipes_are_what_the_plan_has_today() -> None:
    written = json.loads(recipe_costs.RESULT.read_text())
    counted = {name: BackboneCost(**one) for name, one in written["backbones"].items()}
    now = {name: cost(name, config, counted[network(config)]) for name, config in recipes().items()}
    again = "run: python docs/site/recipe_costs.py"
    assert now == written["recipes"], again
    fresh = replace(backbone_cost(compose_config(["recipe=ms1mv3_r50"]).backbone, recipe_costs.PRECISION), units=())
    assert json.loads(json.dumps(asdict(fresh))) == written["backbones"]["r50"], again


def test_a_cost_is_what_its_command_prints(tmp_path: Path) -> None:
    written = json.loads(recipe_costs.RESULT.read_text())["recipes"]["casia_r50"]
    assert main([*shlex.split(written["command"])[1:], "--json", f"{tmp_path}/plan.json"]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert sum(plan["memory_bytes"].values()) == pytest.approx(written["memory_bytes"])
    assert plan["images_per_s"] == pytest.approx(written["images_per_s"])
    epochs = written["steps"] * 512 / 490_623
    assert epochs * plan["epoch_hours"] * written["gpus"] == pytest.approx(written["gpu_hours"])


def test_the_page_of_recipes_says_of_each_what_to_expect_and_what_it_costs() -> None:
    page = recipes_page().partition("## What to expect")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.MULTILINE))
    assert set(rows) == set(groups()["recipe"]) - {"arcface_paper", "arcface_torch"}
    published = {name for name, *_ in PUBLISHED}
    for name, row in rows.items():
        assert ("not published" in row) == (name not in published and "measured" not in row.replace("not measured", ""))
        assert row.endswith("measured") or re.search(r"\| \d+ \| [\d.]+, [\d.]+ \| [\d.]+$", row), name


def _commands(page: str) -> list[list[str]]:
    """Return the commands of a page's blocks of code, each as its words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", "").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("arcdist ", "torchrun "))]


def _ranks(words: list[str]) -> int:
    sizes = [word.partition("=")[2] for word in words if word.startswith(("--nproc_per_node=", "--nnodes=", "gpus="))]
    return math.prod(map(int, sizes))


@pytest.mark.parametrize("page", ["README.md", *PAGES, "recipes, which are made"])
def test_the_runs_of_a_page_compose_and_their_ranks_can_share_the_batch(page: str) -> None:
    for words in _commands((ROOT / page).read_text() if page.endswith(".md") else recipes_page()):
        keys = [word for word in words if re.match(r"[a-z][\w.]*=", word)]
        if words[:2] == ["arcdist", "plan"]:
            keys = [word for word in keys if word.partition("=")[0] not in Cluster.__dataclass_fields__]
        elif "launch/train.py" not in words and words[:2] != ["arcdist", "train"]:
            assert words[0] == "torchrun" or words[1] in VERBS or words[1].startswith("-"), words
            continue
        if "-m" in words:
            check_overrides(keys)
        elif not any("…" in key for key in keys):
            config = compose_config(keys)
            config.validate()
            assert config.train.micro_batch(_ranks(words)), words


def test_the_pictures_are_what_their_script_draws() -> None:
    for name, draw in PICTURES.items():
        assert (ROOT / f"docs/{name}").read_text() == draw(), "run: python docs/site/architecture_pictures.py"


def test_the_picture_of_the_rooms_has_every_room() -> None:
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "arcdist").iterdir() if not path.name.startswith("_")}
    assert all(f">{room}</text>" in PICTURES["rooms.svg"]() for room in rooms - {"py.typed"})
