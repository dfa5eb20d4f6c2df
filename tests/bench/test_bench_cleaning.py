"""The bench of cleaning plants what it says, and judges with the network that it names."""

from pathlib import Path

import numpy as np
import pytest

from arcdist.bench.cleaning import CleaningBenchConfig, bench_cleaning, plant
from arcdist.bench.sface import sface_embeddings
from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin
from arcdist.data.recordio import RecordWriter
from arcdist.errors import DataError


def test_so_many_labels_are_wrong_and_so_many_identities_cut_as_asked() -> None:
    labels = np.repeat(np.arange(50), np.arange(50) % 10 + 1)
    planted = plant(labels, seed=3, wrong=0.1, cut=0.2)
    assert planted.wrong.sum() == round(0.1 * len(labels))
    assert (len(planted.cut), planted.classes) == (10, 60)
    cut = dict(planted.cut)
    for label, wrong, now in zip(labels.tolist(), planted.wrong, planted.labels.tolist()):
        assert wrong or now in (label, cut.get(label))
    assert not np.array_equal(plant(labels, 4, 0.1, 0.2).labels, planted.labels)


def test_what_tells_the_people_apart_finds_most_that_was_planted_and_little_else(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(80), 6)
    with RecordWriter(tmp_path / "set.rec") as writer:
        for key, label in enumerate(labels.tolist()):
            writer.write(key, label, b"no image is looked at")
    (tmp_path / "set.property").write_text("80,112,112\n")
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(80, 64))[labels] + 0.5 * generator.normal(size=(480, 64))
    np.save(tmp_path / "e.npy", embeddings.astype(np.float32))
    config = CleaningBenchConfig(str(tmp_path / "set.rec"), str(tmp_path / "e.npy"), wrong=0.05, cut=0.05, seeds=2)
    result = bench_cleaning(config)
    noise, same = (result["all"][kind] for kind in ("noise", "same"))
    assert (noise["planted"], same["planted"]) == (48, 8)
    assert noise["both"] == sum(row["noise"]["both"] for row in result["rows"])
    assert min(noise["precision"], same["precision"], same["recall"]) > 0.9
    assert noise["recall"] > 0.8
    np.save(tmp_path / "e.npy", embeddings[1:])
    with pytest.raises(DataError, match=r"holds float64 \[479, 64\], not a row of numbers for each of the 480 images"):
        bench_cleaning(config)


def test_a_set_of_one_identity_is_refused(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "set.rec") as writer:
        writer.write(0, 0, b"no image is looked at")
    (tmp_path / "set.property").write_text("1,112,112\n")
    with pytest.raises(DataError, match=r"set.rec: has one identity"):
        bench_cleaning(CleaningBenchConfig(str(tmp_path / "set.rec")))


def test_the_real_networks_embeddings_are_the_known_ones(data_root: Path, tmp_path: Path) -> None:
    images = read_bin(data_root / "lfw_dev.bin").images[:4]
    with RecordWriter(tmp_path / "four.rec") as writer:
        for key, image in enumerate(images):
            writer.write(key, key, image)
    with RecordDataset(tmp_path / "four.rec") as dataset:
        embeddings = sface_embeddings(dataset)
    known = np.load(data_root / "sface_dev_embeddings.npz")["embeddings"][:4]
    np.testing.assert_allclose(embeddings, known, atol=1e-3)
