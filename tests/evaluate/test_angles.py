"""The angle statistics of the ArcFace paper's Table 3, against their plain definition and over ranks."""

import numpy as np
import pytest
import torch
from support import run_ranks

from arcdist.data.evalsets import PairSet
from arcdist.errors import DataError
from arcdist.evaluate.angles import AngleStatistics, angle_statistics
from arcdist.evaluate.genuine_people import genuine_people
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

CLASSES, DIM, IMAGES = 11, 6, 53


def _problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    embeddings = torch.randn(IMAGES, DIM, generator=draw, dtype=torch.float64) * 7
    labels = torch.arange(IMAGES) * 4 % (CLASSES - 2)  # two classes have no image
    return embeddings, labels, torch.randn(CLASSES, DIM, generator=draw, dtype=torch.float64)


def _plain(embeddings: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> dict[str, float]:
    def angle(a: np.ndarray, b: np.ndarray) -> float:
        return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    unit = [row / np.linalg.norm(row) for row in embeddings]
    of = {c: np.mean([u for u, label in zip(unit, labels) if label == c], axis=0) for c in set(labels.tolist())}

    def nearest(rows: list[np.ndarray]) -> float:
        return np.mean([min(angle(a, b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)])

    return {
        "W-EC": np.mean([angle(centers[c], of[c]) for c in of]),
        "W-Inter": nearest(list(centers)),
        "Intra": np.mean([angle(u, of[label]) for u, label in zip(unit, labels.tolist())]),
        "Inter": nearest(list(of.values())),
    }


def _on_ranks(block: int) -> AngleStatistics:
    embeddings, labels, centers = _problem()
    rank, size = collectives.rank(), collectives.world_size()
    shard = shard_rows(CLASSES, rank, size)
    part = slice(None, None) if size == 1 else slice(rank * 9, (rank + 1) * 9 if rank + 1 < size else None)
    return angle_statistics(embeddings[part], labels[part], CLASSES, centers[shard.start : shard.stop], block)


@pytest.mark.parametrize("block", [4, 4096])
def test_the_statistics_are_those_of_the_plain_definition(block: int) -> None:
    embeddings, labels, centers = _problem()
    expected = _plain(embeddings.numpy(), labels.numpy(), centers.numpy())
    found = _on_ranks(block)
    assert found.degrees() == pytest.approx(expected, abs=1e-10)
    assert (found.images, found.classes) == (IMAGES, len(labels.unique()))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_statistics_do_not_depend_on_world_size(world_size: int) -> None:
    alone = _on_ranks(4).degrees()
    for found in run_ranks(_on_ranks, world_size, 4):
        assert found.degrees() == pytest.approx(alone, abs=1e-10)


def test_a_set_without_a_head_has_no_angles_to_centers() -> None:
    embeddings, labels, _ = _problem()
    found = angle_statistics(embeddings, labels, CLASSES)
    assert (found.w_ec_rad, found.w_inter_rad) == (None, None)
    assert found.inter_rad is not None


def test_a_single_class_has_no_nearest_other() -> None:
    assert angle_statistics(torch.eye(3), torch.zeros(3, dtype=torch.int64), 1).inter_rad is None


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_an_embedding_without_direction_is_refused(bad: float) -> None:
    embeddings, labels, _ = _problem()
    embeddings[7] = bad
    with pytest.raises(DataError, match="no direction"):
        angle_statistics(embeddings, labels, CLASSES)


def test_images_that_genuine_pairs_join_are_of_one_person() -> None:
    images = [b"a", b"b", b"a", b"c", b"d", b"e", b"a", b"d"]
    found, people = genuine_people(PairSet(images, np.array([True, True, True, False]), "pairs"))
    whom = dict(zip(found, people.tolist()))
    assert whom[b"a"] == whom[b"b"] == whom[b"c"] != whom[b"d"] == whom[b"e"]
