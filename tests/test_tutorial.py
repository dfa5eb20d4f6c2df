"""Every command of docs/tutorial.md, in its order and as it stands there, on real photographs."""

import json
import re
import shlex
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from arcdist.cli.main import main
from arcdist.data.datasets import RecordDataset

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
IN_A_HURRY = "train.steps=60"  # the page says so, too
PEOPLE, IMAGES, NEW = 40, 9, 1  # images of each in the gallery, and new ones


def commands() -> list[list[str]]:
    """Return the commands of the page's blocks for a shell, without the word arcdist."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[0] == "arcdist" for line in lines)
    return [line[1:] for line in lines]


def put(folder: Path, name: str, photograph: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(photograph)


@pytest.fixture
def here(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with photographs of people of LFW, and one more of each in ``new``."""
    names = defaultdict(list)
    for line in (data_root / "lfw_train.lst").read_text().splitlines():
        key, _, name = line.split("\t")
        names[name.partition("/")[0]].append((int(key), name))
    with RecordDataset(data_root / "lfw_train.rec") as lfw:
        sample = {lfw.key(row): row for row in range(len(lfw))}
        people = [images for images in names.values() if len(images) >= IMAGES + NEW][:PEOPLE]
        for number, (key, name) in ((n, image) for images in people for n, image in enumerate(images[: IMAGES + NEW])):
            put(tmp_path / ("photographs" if number < IMAGES else "new"), name, lfw.read(sample[key])[1])
    for image in (data_root / "raw" / "images").iterdir():
        put(tmp_path / "photographs", f"{image.stem.rpartition('_')[0]}/{image.name}", image.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_photographs_become_a_gallery_that_is_searched_by_the_commands_of_the_page(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"`{IN_A_HURRY}`" in PAGE.read_text()
    verbs = []
    for command in commands():
        verbs.append(command[0])
        more = {"train": [IN_A_HURRY], "search": ["--json", "answers.json"], "evaluate": ["--json", "rates.json"]}
        assert main([*command, *more.get(command[0], [])]) == 0, command
    for verb in ("align", "pack", "inspect", "train", "evaluate", "embed", "search", "export", "report"):
        assert verb in verbs

    photographs = {path.relative_to(here / "photographs") for path in here.glob("photographs/*/*.jpg")}
    faces = {path.relative_to(here / "faces") for path in here.glob("faces/*/*.jpg")}
    assert len(photographs) > 380
    assert faces == photographs
    with RecordDataset("train.rec") as train, RecordDataset("held_out.rec") as held_out:
        assert train.num_classes > 3 * held_out.num_classes > 0
    names = [set(Path(f"{side}.lst").read_text().split("\t")[2::2]) for side in ("train", "held_out")]
    assert names[0].isdisjoint(names[1])
    assert np.load("gallery.npy").shape == (len(faces), 128)
    (rate,) = json.loads(Path("rates.json").read_text())["figures"].values()
    answers = json.loads(Path("answers.json").read_text())["answers"]
    right = [answer["matches"][0]["label"] == answer["query"].partition("/")[0] for answer in answers]
    assert len(right) == PEOPLE
    assert rate > 0.03, "by chance it is about 0.01"
    assert sum(right) > PEOPLE // 8, "by chance it is about one"
    for picture in ("sheet.png", "runs/album/loss.png"):
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "faces: " in said
    assert "The nearest of gallery.npy" in said
