"""The commands of docs/prepare.md work as they stand there, on real photographs."""

import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest
from safetensors.torch import save_file

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin

PAGE = Path(__file__).parents[2] / "docs" / "prepare.md"
EVALUATED = ("Carmen_Electra", "Kristin_Davis")


def commands() -> list[list[str]]:
    """Return the commands of the page's blocks for a shell, without the word arcdist."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) == 10
    assert all(line[0] == "arcdist" for line in lines)
    return [line[1:] for line in lines]


@pytest.fixture
def here(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with what the page begins with: photographs, pairs.txt, model.safetensors."""
    for image in (data_root / "raw" / "images").iterdir():
        folder = tmp_path / "photographs" / image.stem.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / image.name).write_bytes(image.read_bytes())
    first, second = EVALUATED
    (tmp_path / "pairs.txt").write_text(f"1\t1\n{first}\t1\t2\n{first}\t1\t{second}\t3\n")
    model = create_backbone("small", 16)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"backbone": "small", "embedding_dim": "16"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(rec: str) -> dict[int, set[str]]:
    """Return the paths of each label in the list beside a .rec, which has a line for each of its images."""
    people = defaultdict(set)
    for line in Path(rec).with_suffix(".lst").read_text().splitlines():
        people[int(line.split("\t")[1])].add(line.split("\t")[2])
    with RecordDataset(rec) as dataset:
        assert len(dataset) == sum(map(len, people.values()))
        assert dataset.num_classes == len(people)
    return people


def test_photographs_become_a_clean_set_by_the_commands_of_the_page(here: Path) -> None:
    for command in commands():
        assert main([*command, "runtime.device=cpu"] if "model.safetensors" in str(command) else command) == 0
    photographs = {path.relative_to(here / "photographs").as_posix() for path in here.glob("photographs/*/*.jpg")}
    assert len(photographs) == 37
    assert {path.relative_to(here / "faces").as_posix() for path in here.glob("faces/*/*.jpg")} == photographs
    assert len(read_bin("dev.bin").same) == 2

    train = names("train.rec")
    assert set.union(*train.values()) == {name for name in photographs if not name.startswith(EVALUATED)}
    assert all(len({name.split("/")[0] for name in people}) == 1 for people in train.values())
    assert {len(people) for people in names("part.rec").values()}.isdisjoint({1})
    ours, theirs, both = (list(map(frozenset, names(f"{of}.rec").values())) for of in ("ours", "theirs", "both"))
    assert both == ours + theirs
    assert set(both) == set(map(frozenset, train.values()))

    kept = [line for line in (here / "cleaning" / "clean.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(kept) == sum(map(len, names("clean.rec").values()))
    assert Path("sheet.png").stat().st_size > 10_000
