"""Rendered identities: the same bytes anywhere, different people, hard for pixels, files that are read."""

import hashlib
import subprocess
import sys
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from simplejpeg import decode_jpeg

from arcdist.backbones import create_backbone
from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin
from arcdist.data.face_drawing import SPARE_DRAWS, draw_face
from arcdist.data.face_traits import Person, Shot, trait_count, traits
from arcdist.data.recordio import RecordReader
from arcdist.data.synthetic import SyntheticConfig, encode, render, write_pairs, write_record
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.verification import verify

CONFIG = SyntheticConfig(identities=3, images_per_identity=2, seed=5)
TRAITS = [trait.name for trait in fields(Person)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_record(CONFIG, folder / "train.rec", workers=1)
    return folder


def test_an_image_has_the_same_bytes_in_another_process_and_order():
    code = (
        "import hashlib\nfrom arcdist.data.synthetic import SyntheticConfig, encode\n"
        "for identity, image in ((70000, 1), (2, 1), (2, 0)):\n"
        "    print(hashlib.sha256(encode(SyntheticConfig(seed=5), identity, image)).hexdigest())"
    )
    theirs = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ours = [hashlib.sha256(encode(CONFIG, *which)).hexdigest() for which in ((2, 0), (2, 1), (70000, 1))]
    assert theirs == ours[::-1]


def test_identities_count_from_the_first_one():
    np.testing.assert_array_equal(render(replace(CONFIG, first_identity=1000), 2, 1), render(CONFIG, 1002, 1))


def test_seed_identity_and_image_all_change_the_picture():
    others = render(replace(CONFIG, seed=6), 0, 0), render(CONFIG, 1, 0), render(CONFIG, 0, 1)
    assert all(np.abs(render(CONFIG, 0, 0).astype(int) - other).mean() > 5.0 for other in others)


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_of_a_person_shows(trait):
    plain = traits(Shot, np.full(trait_count(Shot), 0.5))
    person = traits(Person, np.full(trait_count(Person), 0.5))
    person = replace(person, mole_x=25.0)  # beside the nose: where there is none, its height does not show
    low, high = next(field.metadata["between"] for field in fields(Person) if field.name == trait)
    draws = np.full(SPARE_DRAWS, 0.5)
    images = [draw_face(replace(person, **{trait: value}), plain, draws, 112) for value in (low, high)]
    assert np.abs(images[0].astype(int) - images[1]).max() > 4


@pytest.mark.parametrize("size", [64, 112, 160])
def test_the_size_only_scales_the_picture(size):
    image = render(replace(CONFIG, image_size=size), 1, 1)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    usual = render(CONFIG, 1, 1)
    coarse = [cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA).astype(int) for picture in (image, usual)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 6.0


def test_neither_pixels_nor_colors_nor_an_untrained_net_give_an_identity_away():
    identities, images = 120, 4
    pixels = np.array([[render(SyntheticConfig(), i, j) for j in range(images)] for i in range(identities)])
    flat = pixels.reshape(identities, images, -1).astype(np.float32)
    colors = pixels.mean(axis=(2, 3))
    projection = np.random.default_rng(0).standard_normal((flat.shape[2], 128), dtype=np.float32)
    torch.manual_seed(0)
    net = create_backbone("tiny", embedding_dim=128).eval()
    with torch.no_grad():
        inputs = torch.from_numpy(pixels).flatten(0, 1).permute(0, 3, 1, 2) / 127.5 - 1.0
        untrained = net(inputs).unflatten(0, (identities, images)).numpy()
    for embedding in (flat @ projection, colors, untrained):
        embedding = (embedding - embedding.mean(axis=(0, 1))) / embedding.std(axis=(0, 1))
        embedding /= np.linalg.norm(embedding, axis=2, keepdims=True)
        genuine = (embedding[:, ::2] * embedding[:, 1::2]).sum(axis=2).ravel()
        impostor = (embedding[:, :2] * np.roll(embedding[:, 2:], 1, axis=0)).sum(axis=2).ravel()
        thresholds = np.concatenate((genuine, impostor))[:, None]
        best = (0.5 * (genuine >= thresholds).mean(axis=1) + 0.5 * (impostor < thresholds).mean(axis=1)).max()
        assert best < 0.56  # by the best threshold for these very pairs


def test_untrained_nets_are_at_chance_on_the_pairs(tmp_path):
    write_pairs(SyntheticConfig(image_size=64), tmp_path / "held_out.bin", 600)
    pairs = read_bin(tmp_path / "held_out.bin")
    pixels = torch.from_numpy(np.stack([decode_jpeg(image) for image in pairs.images]))
    for seed in range(3):
        torch.manual_seed(seed)
        net = create_backbone("tiny", embedding_dim=128).eval()
        with torch.no_grad():
            embeddings = net(pixels.permute(0, 3, 1, 2) / 127.5 - 1.0)
        result = verify(embeddings.numpy(), pairs.same)
        assert 0.46 < result.accuracy < 0.52
        assert 0.38 < result.auc < 0.48  # without pairs in one light: 0.53


def test_light_is_the_only_thing_taken_from_another_image():
    own, lit = (decode_jpeg(encode(CONFIG, 1, 0, light)).astype(float) for light in (None, (2, 1)))
    assert encode(CONFIG, 1, 0, (1, 0)) == encode(CONFIG, 1, 0)
    assert np.abs(own - lit).mean() > 5.0
    edges = [np.abs(cv2.Laplacian(image.mean(axis=2), cv2.CV_64F)).ravel() for image in (own, lit)]
    assert np.corrcoef(*edges)[0, 1] > 0.7  # the same lines, so the same face in the same pose


def test_the_training_set_reads_back(written):
    dataset = RecordDataset(written / "train.rec")
    assert (dataset.num_classes, len(dataset), dataset.image_size) == (3, 6, (112, 112))


def test_records_have_insightface_layout(written):
    with RecordReader(written / "train.rec") as reader:
        images = [reader[key] for key in range(1, 7)]
        assert [(record.flag, record.label) for record in images] == [(0, label) for label in (0, 0, 1, 1, 2, 2)]
        assert images[3].payload == encode(CONFIG, 1, 1)
        others = [reader[key] for key in (0, 7, 8, 9)]
        assert all(record.flag == 2 and record.payload == b"" for record in others)
        np.testing.assert_array_equal([record.label for record in others], [[7, 10], [1, 3], [3, 5], [5, 7]])
    assert (written / "property").read_text() == "3,112,112\n"


def test_the_files_do_not_depend_on_the_number_of_workers(written, tmp_path):
    write_record(CONFIG, tmp_path / "train.rec", workers=2)
    for name in ("train.rec", "train.idx", "train.property", "property"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_pairs_are_of_people_outside_the_training_set_and_no_person_is_in_two_folds(tmp_path):
    write_pairs(CONFIG, tmp_path / "held_out.bin", 40, workers=1)
    pairs = read_bin(tmp_path / "held_out.bin")
    assert pairs.same.tolist() == [True, True, False, False] * 10
    people = {encode(CONFIG, identity, image): identity for identity in range(3, 23) for image in range(4)}
    people |= {
        encode(CONFIG, k + 1, 3, light_of=(k, 2)): k + 1 for k in range(3, 23, 2)
    }  # a fold's first impostor pair
    shown = np.array([people[image] for image in pairs.images]).reshape(10, 4, 2)
    assert [first == second for first, second in shown.reshape(-1, 2)] == pairs.same.tolist()
    assert [set(fold.ravel()) for fold in shown] == [{3 + 2 * fold, 4 + 2 * fold} for fold in range(10)]
    assert len(set(pairs.images)) == 80


@pytest.mark.parametrize(
    ("key", "value"),
    [("identities", 0), ("identities", 1 << 25), ("images_per_identity", 0), ("first_identity", -1), ("image_size", 8)],
)
def test_a_value_that_cannot_be_right_is_named(tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"^{key}: {value}: "):
        write_record(replace(CONFIG, **{key: value}), tmp_path / "train.rec")
    assert not list(tmp_path.iterdir())


def test_pairs_that_do_not_fill_ten_folds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="multiple of 20"):
        write_pairs(CONFIG, tmp_path / "held_out.bin", 30)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/train\.rec: cannot be written"):
        write_record(CONFIG, tmp_path / "file" / "train.rec", workers=1)
