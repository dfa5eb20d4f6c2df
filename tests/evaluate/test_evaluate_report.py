import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from arcdist.errors import DataError
from arcdist.evaluate.report import draw, results_table, write_json
from arcdist.evaluate.verification import pair_cosines, verify


def pairs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    same = np.arange(60) % 2 == 0
    identity = random.normal(size=(60, 2, 8))
    identity[same, 1] = identity[same, 0] + 0.3 * random.normal(size=(30, 8))
    return identity.reshape(120, 8), same


def test_table_says_in_percent_what_each_set_scores() -> None:
    result = verify(*pairs())
    console = Console(width=200, record=True)
    console.print(results_table({"lfw": result, "cfp_fp": result}))
    text = console.export_text()
    assert "TAR@FAR=1e-3" in text
    assert text.count(f"{100 * result.accuracy:.2f} ± {100 * result.std:.2f}") == 2
    assert text.index("lfw") < text.index("cfp_fp")


def test_table_marks_a_tar_that_allows_no_false_accept_of_so_few_impostors() -> None:
    result = verify(*pairs())  # 30 impostor pairs: one of them is more than 1 %
    console = Console(width=200, record=True)
    console.print(results_table({"lfw": result}))
    text = console.export_text()
    assert f"{100 * result.tar_at_far[1e-1]:.2f} " in text
    assert f"{100 * result.tar_at_far[1e-2]:.2f}*" in text
    assert "* without any false accept" in text


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "summary.json"
    write_json(path, {"accuracy": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"accuracy": object()})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/summary\.json: cannot be written"):
        write_json(tmp_path / "file" / "summary.json", {})


def test_a_json_file_that_cannot_take_its_name_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(DataError, match=r"summary\.json: cannot be written"):
        write_json(tmp_path / "summary.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_pictures_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*: cannot be written"):
        draw(tmp_path / "file" / "pictures", steps=[1], loss=[1.0], cosines={}, results={})


def test_three_pictures_of_a_run_are_drawn(tmp_path: Path) -> None:
    embeddings, same = pairs()
    sets = {"lfw": pair_cosines(embeddings, same), "cfp_fp": pair_cosines(embeddings, same)}
    results = {name: verify(embeddings, same) for name in sets}
    paths = draw(
        tmp_path,
        steps=[1, 2, 3],
        loss=[3.0, float("nan"), 1.0],
        cosines=sets,
        results=results,
        accuracies={"lfw": ([2, 3], [0.5, 0.9])},
    )
    assert [path.name for path in paths] == ["loss.png", "angles.png", "roc.png"]
    for path in paths:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape[1] == 1050
        assert picture.std() > 5  # something is on it


def test_a_run_without_evaluation_has_a_loss_curve_only(tmp_path: Path) -> None:
    draw(tmp_path / "new", steps=[1], loss=[float("nan")], cosines={}, results={})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["loss.png"]
