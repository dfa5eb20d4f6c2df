"""A run goes on with the samples that an undisturbed one would have had, whatever the ranks and threads are by then."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.datasets import RecordDataset
from arcdist.data.order import Order, rows_of_step
from arcdist.data.torch_loader import LoaderConfig, TorchLoader

BATCH, STOPPED, STEPS = 48, 3, 21  # 1,008 samples, over more than four epochs' borders of 224 images
LOADERS = [TorchLoader, *([DaliLoader] if has_dali() else [])]
AUGMENT = AugmentConfig(rotation_deg=10.0, color=0.5, brightness=0.3, crop=0.2, jpeg=0.2, resize=0.2)


def rows(
    path: Path, kind: type[TorchLoader], augment: AugmentConfig, world_size: int, workers: int, first: int, last: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels of the global batches of these steps, joined from all ranks."""
    with RecordDataset(path) as dataset:
        ranks = [
            kind(
                *(dataset, Order(len(dataset), 7), Augment(augment, 7), BATCH, rank, world_size, dataset.image_size),
                LoaderConfig(workers, 2),
            ).batches(first, last)
            for rank in range(world_size)
        ]
        parts = [part for step in zip(*ranks, strict=True) for part in step]
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


@pytest.mark.parametrize("augment", [AugmentConfig(), AUGMENT], ids=["flips", "much"])
@pytest.mark.parametrize("kind", LOADERS)
def test_the_next_1000_samples_are_bit_identical_from_2_ranks_to_1_3_and_4_and_other_threads(
    data_root: Path, kind: type[TorchLoader], augment: AugmentConfig
) -> None:
    path = data_root / "cfp_small.rec"
    images, labels = rows(path, kind, augment, 2, 2, 0, STOPPED + STEPS)
    for world_size, workers in ((1, 3), (3, 1), (4, 2)):
        resumed, resumed_labels = rows(path, kind, augment, world_size, workers, STOPPED, STOPPED + STEPS)
        assert len(resumed) == 1008
        assert torch.equal(resumed_labels, labels[STOPPED * BATCH :])
        assert torch.equal(resumed, images[STOPPED * BATCH :])


def test_an_epoch_that_was_stopped_and_resumed_twice_on_other_ranks_has_each_sample_once(data_root: Path) -> None:
    path = data_root / "cfp_small.rec"
    with RecordDataset(path) as dataset:
        every = Counter(dataset.read(sample) for sample in range(len(dataset)))
        order, seen = Order(len(dataset), 7), Counter()
        for world_size, first, last in ((2, 0, 5), (4, 5, 6), (1, 6, 14)):  # 14 steps of 16 are an epoch of 224
            for rank in range(world_size):
                for step in range(first, last):
                    positions = rows_of_step(step, 16, rank, world_size)
                    samples = order.samples(positions.start, positions.stop).tolist()
                    seen.update(dataset.read(sample) for sample in samples)
    assert seen == every
