"""Wrong labels and split identities are found, and what a rank or a block is does not matter."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from support import run_ranks

from arcdist.bench.cleaning import plant
from arcdist.data.pairs_txt import read_pairs
from arcdist.errors import DataError
from arcdist.prepare.faces import Faces
from arcdist.prepare.robust_centers import robust_centers
from arcdist.prepare.suspicions import PASSES, Suspicions, find_suspicions

CPU = torch.device("cpu")


def drawn(identities: int = 120, dim: int = 64, cosine: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings of 1 to 9 images of each identity, any two of which have about that cosine."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(identities), np.arange(identities) % 9 + 1)
    people, shots = (generator.normal(size=(count, dim)) / dim**0.5 for count in (identities, len(labels)))
    embeddings = cosine**0.5 * people[labels] + (1 - cosine) ** 0.5 * shots
    return (embeddings * generator.uniform(1, 30, (len(labels), 1))).astype(np.float32), labels


@pytest.fixture(scope="module")
def real(data_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a real network's embeddings of the images of people of whom there are two or more, and who they are."""
    pairs = read_pairs(data_root / "lfw_dev_pairs.txt")
    images = [image for first, second, _ in pairs for image in (first, second)]
    rows = {image: row for row, image in enumerate(images)}
    names, labels = np.unique([name for name, _ in rows], return_inverse=True)
    assert len(names) == 469
    embeddings = np.load(data_root / "sface_dev_embeddings.npz")["embeddings"][list(rows.values())]
    several = np.bincount(labels)[labels] > 1
    return embeddings[several], np.unique(labels[several], return_inverse=True)[1]


def test_planted_faults_of_real_faces_are_found(real: tuple[np.ndarray, np.ndarray]) -> None:
    right = np.zeros(6)
    embeddings, labels = real
    for seed in range(5):
        planted = plant(labels, seed, 0.03, 0.03)
        found = find_suspicions(Faces(embeddings, CPU), planted.labels, planted.classes)
        same = set(map(tuple, found.same.tolist()))
        right += [planted.wrong.sum(), found.noise.sum(), (found.noise & planted.wrong).sum(),
                  len(planted.cut), len(same), len(same & planted.cut)]  # fmt: skip
    wrong, noise, found_wrong, cut, same, found_cut = right
    assert found_wrong >= 0.9 * wrong
    assert found_wrong >= 0.95 * noise
    assert found_cut >= 0.9 * max(cut, same)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    embeddings, labels = drawn()
    found = find_suspicions(Faces(embeddings, CPU), labels, 120)
    assert found.noise.sum() <= 2
    assert len(found.same) == 0
    assert np.isnan(found.own).sum() == (np.bincount(labels) == 1).sum()


def test_an_image_with_a_wrong_label_names_the_identity_that_it_is_of() -> None:
    embeddings, labels = drawn()
    wrong = labels.copy()
    image = int(np.flatnonzero(labels == 8)[0])
    wrong[image] = 16
    found = find_suspicions(Faces(embeddings, CPU), wrong, 120)
    assert found.elsewhere[image]
    assert found.other_label[image] == 8


def test_the_own_cosine_leaves_the_image_out() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(5, 8)).astype(np.float32)
    own = robust_centers(Faces(embeddings, CPU), torch.tensor([0, 0, 1, 2, 2]), 3).own
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    torch.testing.assert_close(own[:2], torch.full((2,), float(unit[0] @ unit[1])))
    assert own[2].isnan()
    torch.testing.assert_close(own[3:], torch.full((2,), float(unit[3] @ unit[4])))


def test_the_weights_are_those_of_their_definition() -> None:
    embeddings, labels = drawn(12, 16)
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    centers = robust_centers(Faces(embeddings, CPU), torch.from_numpy(labels), 12)
    for label in range(12):
        images = unit[labels == label]
        others, weights = ~np.eye(len(images), dtype=bool), np.ones(len(images))
        for _ in range(4):
            means = others * weights / np.maximum((others * weights).sum(1, keepdims=True), 1e-12)
            own = ((images @ images.T) * means).sum(1)
            final, weights = weights, np.maximum(own, 0.02) ** 2 if len(images) > 1 else weights
        mean = final @ images / final.sum()
        np.testing.assert_allclose(centers.means[label].numpy(), mean, atol=1e-5)
        if len(images) > 1:
            np.testing.assert_allclose(centers.own[torch.from_numpy(labels == label)].numpy(), own, atol=1e-5)


def test_a_wrong_image_loses_its_vote_where_the_others_agree() -> None:
    embeddings, labels = drawn()
    wrong = labels.copy()
    image = int(np.flatnonzero(labels == 7)[0])
    wrong[image] = 3  # of which there are four
    means = robust_centers(Faces(embeddings, CPU), torch.from_numpy(wrong), 120).means[3]
    right = robust_centers(Faces(embeddings, CPU), torch.from_numpy(labels), 120).means[3]
    plain = torch.nn.functional.normalize(torch.from_numpy(embeddings[wrong == 3])).mean(0)
    assert torch.cosine_similarity(means, right, 0) > 0.99
    assert torch.cosine_similarity(plain, right, 0) < 0.98


def of_ranks(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> Suspicions:
    """Return what a rank finds."""
    return find_suspicions(Faces(embeddings, CPU, block=50), labels, classes)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_neither_ranks_nor_blocks_change_what_is_found(world_size: int) -> None:
    embeddings, labels = drawn()
    planted = plant(labels, 0, 0.06, 0.06)
    alone = find_suspicions(Faces(embeddings, CPU), planted.labels, planted.classes)
    assert alone.noise.sum() > 10
    assert len(alone.same) > 2
    for found in run_ranks(of_ranks, world_size, embeddings, planted.labels, planted.classes):
        for item in fields(Suspicions):
            np.testing.assert_allclose(getattr(found, item.name), getattr(alone, item.name), atol=1e-5)


def test_progress_is_that_of_all_passes() -> None:
    embeddings, labels = drawn()
    seen: list[int] = []
    find_suspicions(Faces(embeddings, CPU, 100, seen.append), labels, 120)
    assert sum(seen) == PASSES * len(embeddings)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_embedding_without_a_direction_is_named(value: float) -> None:
    embeddings, labels = drawn()
    embeddings[77] = value
    with pytest.raises(DataError, match="embedding 77 is zero or not finite"):
        find_suspicions(Faces(embeddings, CPU), labels, 120)


def test_a_set_of_single_images_cannot_be_judged() -> None:
    with pytest.raises(DataError, match="no identity has two images"):
        find_suspicions(Faces(np.eye(5, dtype=np.float32), CPU), np.arange(5), 5)
