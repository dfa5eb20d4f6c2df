"""What is suspicious of a set becomes lists that a run and a pack read, sheets, and a report; from the command line."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file
from support import full_disk

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.data.datasets import RecordDataset
from arcdist.data.recordio import RecordWriter
from arcdist.data.selection import SelectConfig, Selection, read_clean_list
from arcdist.data.synthetic import SyntheticConfig, encode


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Return 12 drawn people of whom there are 6 images each; image 0 of person 0 has label 5, person 3 two labels.

    Beside it lie embeddings that tell the people apart.
    """
    people = SyntheticConfig(identities=12, images_per_identity=6, image_size=32)
    truth = np.repeat(np.arange(12), 6)
    labels = truth.copy()
    labels[0] = 5
    labels[18:21] = 12
    with RecordWriter(tmp_path / "faulty.rec") as writer:
        for image, label in enumerate(labels.tolist()):
            writer.write(image + 1, label, encode(people, int(truth[image]), image % 6))
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(12, 64))[truth] + 0.6 * generator.normal(size=(72, 64))
    np.save(tmp_path / "known.npy", embeddings.astype(np.float32))
    return tmp_path / "faulty.rec"


def test_the_lists_are_read_by_a_run_and_by_pack(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = faulty.with_suffix(".cleaning")
    assert main(["inspect", str(faulty), f"with={faulty.with_name('known.npy')}"]) == 0
    told = capsys.readouterr().out
    assert "1 of 72 images that can be judged; 1 belong to another identity" in told
    assert "1 pairs of identities" in told
    assert set(read_clean_list(folder / "clean.txt").tolist()) == set(range(2, 73))
    with RecordDataset(faulty) as whole:
        assert len(Selection(whole, SelectConfig(clean_list=str(folder / "clean.txt")))) == 71

    lists = [f"clean_list={folder / 'clean.txt'}", f"same={folder / 'same.txt'}"]
    assert main(["pack", str(faulty), str(faulty.with_name("clean.rec")), *lists, "progress=false"]) == 0
    with RecordDataset(faulty.with_name("clean.rec")) as clean:
        assert clean.labels().tolist() == np.repeat(np.arange(12), 6)[1:].tolist()


def test_the_report_says_of_each_suspicion_why(faulty: Path) -> None:
    folder = faulty.parent / "other"
    assert main(["inspect", str(faulty), "--with", str(faulty.with_name("known.npy")), f"output={folder}"]) == 0
    report = json.loads((folder / "report.json").read_text())
    (noise,) = report["noise"]
    assert (noise["record"], noise["label"], noise["nearest_label"], noise["why"]) == (1, 5, 0, "elsewhere")
    assert noise["own"] < report["thresholds"]["genuine"] < noise["nearest"]
    (same,) = report["same"]
    assert same["labels"] == [3, 12]
    assert same["images"] == [3, 3]
    assert f"# 1\t{noise['own']:.3f}\tlabel 5, {noise['nearest']:.3f} to label 0" in (folder / "clean.txt").read_text()


def test_the_sheets_show_the_image_beside_its_own_and_the_nearest_identity(faulty: Path) -> None:
    folder = faulty.with_suffix(".cleaning")
    assert main(["inspect", str(faulty), f"with={faulty.with_name('known.npy')}"]) == 0
    noise, same = (cv2.imread(str(folder / name)) for name in ("noise.png", "same.png"))
    assert noise.shape == (120, 190 + 7 * 120, 3)
    assert same.shape == (120, 190 + 6 * 120, 3)


def test_a_net_judges_with_the_embeddings_that_embed_makes(faulty: Path) -> None:
    weights, folder = faulty.with_name("net.safetensors"), faulty.with_suffix(".cleaning")
    model = create_backbone("small", 16)
    save_file(model.state_dict(), weights, {"backbone": "small", "embedding_dim": "16"})
    command = [f"with={weights}", "runtime.device=cpu", "batch_size=24"]
    assert main(["inspect", str(faulty), *command]) == 0
    embed = ["embed", str(weights), str(faulty), str(faulty.with_name("e.npy")), "batch_size=24", "runtime.device=cpu"]
    assert main([*embed, "image_size=32"]) == 0
    assert np.array_equal(np.load(folder / "embeddings.npy"), np.load(faulty.with_name("e.npy")))
    assert {path.name for path in folder.iterdir()} >= {"clean.txt", "same.txt", "report.json", "embeddings.tsv"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("short", r"known.npy: holds float32 \[71, 64\], not a row of numbers for each of the 72 images of"),
        ("other", "known.tsv: names other records than"),
        ("text", "known.npy: is no array of embeddings"),
        ("missing", "known.npy: is no array of embeddings"),
        ("empty", "known.npy: is no array of embeddings"),
        ("archive", "known.npy: is no array of embeddings"),
        ("binary", "known.tsv: cannot be read"),
    ],
)
def test_embeddings_of_another_set_are_refused(
    faulty: Path, change: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = faulty.with_name("known.npy")
    if change == "short":
        np.save(known, np.load(known)[1:])
    if change == "other":
        known.with_suffix(".tsv").write_text("name\tlabel\n" + "".join(f"{key}\t0\n" for key in range(72)))
    if change == "text":
        known.write_text("no array")
    if change == "empty":
        known.write_bytes(b"")
    if change == "archive":
        with known.open("wb") as file:
            np.savez(file, embeddings=np.ones((72, 4)))
    if change == "binary":
        known.with_suffix(".tsv").write_bytes(b"\xff\xfe\x00")
    if change == "missing":
        known.unlink()
    assert main(["inspect", str(faulty), f"with={known}"]) == 1
    assert re.search(complaint, capsys.readouterr().err)


def test_a_disk_that_is_full_is_told_and_no_part_of_a_list_is_left(faulty: Path, capsys) -> None:
    with full_disk(200):
        assert main(["inspect", str(faulty), f"with={faulty.with_name('known.npy')}"]) == 1
    assert "cannot be written: File too large" in capsys.readouterr().err
    assert not list(faulty.with_suffix(".cleaning").iterdir())


def test_pairs_have_no_labels_to_judge(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(data_root / "cfp_dev_fp.bin"), "with=net.safetensors"]) == 2
    assert "with: judges the labels of a .rec" in capsys.readouterr().err
