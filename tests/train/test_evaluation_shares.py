"""An evaluation in the middle of training takes each rank its share of the images, and no more."""

import math
from collections import Counter
from pathlib import Path

import torch
from small_runs import small_config, small_trainer
from support import run_ranks

from arcdist.data.evalsets import read_bin
from arcdist.train.config import TrainConfig

RANKS, BATCH = 3, 4


def images_embedded(config: TrainConfig) -> dict[int, int]:
    """Train on this rank; return by step how many images its net has embedded for an evaluation."""
    trainer = small_trainer(config)
    found: Counter[int] = Counter()

    def count(net: torch.nn.Module, images: tuple[torch.Tensor], embeddings: torch.Tensor) -> None:
        if torch.is_inference_mode_enabled():
            found[trainer.step.count] += len(images[0])

    trainer.step.trained.register_forward_hook(count)
    trainer.run()
    return dict(found)


def test_each_rank_embeds_its_share_of_an_evaluations_images_and_no_image_is_embedded_twice(
    faces: Path, tmp_path: Path
) -> None:
    held_out = faces / "held_out.bin"
    evaluate = {"sets": [str(held_out)], "every": 3, "batch_size": BATCH, "flip": False}
    config = small_config(tmp_path, faces / "train.rec", {"evaluate": evaluate})
    embedded = run_ranks(images_embedded, RANKS, config)
    images = len(set(read_bin(held_out).images))
    share = math.ceil(math.ceil(images / BATCH) / RANKS) * BATCH
    for step in (3, 6):
        of_ranks = [each[step] for each in embedded]
        assert sum(of_ranks) == images
        assert max(of_ranks) <= share < images
    assert all(each.keys() == {3, 6} for each in embedded)
