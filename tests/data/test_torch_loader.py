"""A rank's batches depend on the seeds and the step, not on ranks, threads, or where the run was resumed."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.order import Order
from arcdist.data.torch_loader import Batch, LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

SIZE = 90
AUGMENT = AugmentConfig(rotation_deg=10.0, brightness=0.3, occlusion=0.5)


class Squares:
    """JPEGs of one color each, 24×16; the label is the sample."""

    def __init__(self, damaged: "int | None" = None) -> None:
        colors = np.random.default_rng(0).integers(0, 256, (SIZE, 3), dtype=np.uint8)
        self.payloads = [simplejpeg.encode_jpeg(np.broadcast_to(color, (24, 16, 3)).copy()) for color in colors]
        if damaged is not None:
            self.payloads[damaged] = self.payloads[damaged][:-9]

    def read(self, sample: int) -> tuple[int, bytes]:
        return sample, self.payloads[sample]

    def name(self, sample: int) -> str:
        return f"square {sample}"


def loader(
    rank: int = 0,
    world_size: int = 1,
    global_batch_size: int = 18,
    workers: int = 2,
    prefetch: int = 2,
    augment: AugmentConfig = AUGMENT,
    damaged: "int | None" = None,
    size_at: "Callable[[int], int] | None" = None,
) -> TorchLoader:
    config = LoaderConfig(workers, prefetch)
    parts = (Squares(damaged), Order(SIZE, 1), Augment(augment, 1), global_batch_size, rank, world_size, (24, 16))
    return TorchLoader(*parts, config, size_at=size_at)


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_rows_of_the_ranks_are_the_global_batch(world_size: int) -> None:
    ranks = [loader(rank, world_size).batches(0, 7) for rank in range(world_size)]
    joined = [
        Batch(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
        for parts in zip(*ranks)
    ]
    assert_same(joined, list(loader().batches(0, 7)))


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (1, 3), (5, 1), (3, 50)])
def test_threads_and_prefetching_do_not_change_the_batches(workers: int, prefetch: int) -> None:
    assert_same(
        list(loader(global_batch_size=150, workers=workers, prefetch=prefetch).batches(0, 4)),
        list(loader(global_batch_size=150).batches(0, 4)),
    )


def test_a_resumed_run_has_the_same_batches() -> None:
    assert_same(list(loader().batches(3, 9)), list(loader().batches(0, 9))[3:])


def test_an_epoch_has_each_sample_once() -> None:
    labels = torch.cat([batch.labels for batch in loader().batches(5, 10)])
    assert labels.sort().values.tolist() == list(range(SIZE))


def test_an_image_goes_with_its_label() -> None:
    squares = Squares()
    for batch in loader(augment=AugmentConfig(flip=0.0)).batches(0, 2):
        for image, label in zip(batch.images, batch.labels.tolist()):
            expected = simplejpeg.decode_jpeg(squares.read(label)[1], "RGB")
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_two_visits_of_a_sample_are_augmented_differently() -> None:
    batches = list(loader(global_batch_size=SIZE).batches(0, 2))
    first, second = (batch.images[batch.labels.argsort()] for batch in batches)
    assert (first != second).flatten(1).any(dim=1).float().mean() > 0.9


def test_a_batch_is_bytes_in_channels_last_memory_and_becomes_floats_in_minus_one_to_one() -> None:
    batch = next(loader().batches(0, 1))
    assert batch.images.shape == (18, 3, 24, 16)
    assert batch.images.dtype == torch.uint8
    moved = batch.to("cpu")
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(moved.images, batch.images.float() / 127.5 - 1, atol=1e-6)
    assert moved.labels.dtype == torch.int64


def test_a_step_has_the_size_that_is_asked_for() -> None:
    grown = list(loader(size_at=lambda step: 12 if step < 2 else 20).batches(0, 4))
    assert [tuple(batch.images.shape[2:]) for batch in grown] == [(12, 12), (12, 12), (20, 20), (20, 20)]
    assert_same(grown[1:], list(loader(size_at=lambda step: 12 if step < 2 else 20).batches(1, 4)))
    assert [batch.labels.tolist() for batch in grown] == [batch.labels.tolist() for batch in loader().batches(0, 4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_image_is_named_in_place_of_its_batch(workers: int) -> None:
    position = 40  # in the third batch of 18
    damaged = int(Order(SIZE, 1).samples(position, position + 1)[0])
    batches = loader(workers=workers, damaged=damaged).batches(0, 100)
    assert [len(next(batches).labels) for _ in range(2)] == [18, 18]
    with pytest.raises(DataError, match=f"square {damaged}: is damaged"):
        next(batches)
    assert threads() == []


def test_an_image_of_another_size_is_named() -> None:
    one = loader()
    one.image_size = (112, 112)
    with pytest.raises(DataError, match=r"square \d+: is 24×16 pixels, not 112×112"):
        next(one.batches(0, 1))


def test_leaving_early_stops_the_threads() -> None:
    for _ in (batches := loader(prefetch=20).batches(0, 1000)):
        break
    assert threads()
    batches.close()
    assert threads() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 0}, "loader.workers: 0: must be at least 1"),
        ({"prefetch": -1}, "loader.prefetch: -1: must be 0 or above"),
        ({"world_size": 4}, "global_batch_size: 18: must be a multiple of the 4 ranks"),
    ],
)
def test_a_loader_that_cannot_work_is_refused_when_it_is_made(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(**values)
