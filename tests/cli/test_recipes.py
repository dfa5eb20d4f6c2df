"""Every recipe composes and builds, and a data set has as many classes and images as the field counts in it."""

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from arcdist.backbones import BackboneConfig
from arcdist.cli.compose import compose_config, config_folder
from arcdist.data.augment import Augment
from arcdist.margins import CombinedConfig
from arcdist.optim import Schedule
from arcdist.runtime.sharding import shard_rows
from arcdist.train.config import TrainConfig

# From the papers and the data sets' own pages, not from configs/.
CLASSES_AND_IMAGES = {
    "casia": (10_572, 490_623),
    "vggface2": (8_631, 3_141_890),
    "ms1mv2": (85_742, 5_822_653),
    "ms1mv3": (93_431, 5_179_510),
    "ms1m_deepglint": (86_876, 3_923_399),
    "asian_deepglint": (93_979, 2_830_146),
    "deepglint": (86_876 + 93_979, 3_923_399 + 2_830_146),
    "glint360k": (360_232, 17_091_657),
    "webface4m": (205_990, 4_235_242),
    "webface12m": (617_970, 12_720_066),
    "webface42m": (2_059_906, 42_474_557),
}
OF_ANY_SIZE = {"recordio", "synthetic"}


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


every_recipe = pytest.mark.parametrize("recipe", _names("recipe"))


@cache
def _config(recipe: str) -> TrainConfig:
    return compose_config([f"recipe={recipe}"])


@cache
def _backbone(**options: Any) -> tuple[nn.Module, torch.Size]:
    """Return a backbone without memory, and the shape of two faces' embeddings."""
    with torch.device("meta"):
        backbone = BackboneConfig(**options).build().eval()
        return backbone, backbone(torch.empty(2, 3, 112, 112)).shape


def _schedule(config: TrainConfig) -> Schedule:
    images = config.data.images or 10_000
    return config.optim.schedule.build(config.train.total_steps(images), images / config.train.global_batch_size)


def _shards(config: TrainConfig) -> list[range]:
    """Return the classes of each of the ranks that the recipe is made for: those that run one micro-batch a step."""
    ranks = config.train.global_batch_size // (config.train.micro_batch_size or config.train.global_batch_size)
    assert config.train.micro_batch(ranks) * ranks == config.train.global_batch_size
    return [shard_rows(config.data.num_classes or 100, rank, ranks) for rank in range(ranks)]


@every_recipe
def test_a_recipe_is_valid_and_its_run_is_called_after_it(recipe: str) -> None:
    config = _config(recipe)
    config.validate()
    assert config.name == recipe


@every_recipe
def test_a_recipe_builds_its_backbone_and_an_optimizer_of_all_that_it_trains(recipe: str) -> None:
    config = _config(recipe)
    backbone, embeddings = _backbone(**asdict(config.backbone) | {"frozen": tuple(config.backbone.frozen)})
    assert embeddings == (2, config.backbone.embedding_dim)
    centers = nn.Parameter(torch.empty(len(_shards(config)[0]), config.backbone.embedding_dim, device="meta"))
    optimizer = config.optim.build(backbone, centers)
    updated = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert updated == {parameter for parameter in [*backbone.parameters(), centers] if parameter.requires_grad}


@every_recipe
def test_a_recipe_has_a_margin_that_lowers_the_target_logit(recipe: str) -> None:
    margin = _config(recipe).margin.build()
    cosine = torch.tensor([-0.9, 0.0, 0.9])
    assert (margin.target_logit(cosine, torch.ones(3)) < margin.scale * cosine).all()


@every_recipe
def test_every_rank_that_a_recipe_is_made_for_has_classes(recipe: str) -> None:
    shards = _shards(_config(recipe))
    assert all(shards)
    assert sum(map(len, shards)) == (_config(recipe).data.num_classes or 100)


@every_recipe
def test_a_recipe_reaches_its_peak_learning_rate_and_ends_far_below_it(recipe: str) -> None:
    schedule = _schedule(_config(recipe))
    assert schedule(schedule.warmup_steps) == 1
    assert 0 <= schedule(schedule.total_steps - 1) <= 0.1


@pytest.mark.parametrize("name", sorted(set(_names("data")) - OF_ANY_SIZE))
def test_a_data_set_has_as_many_classes_and_images_as_the_field_counts(name: str) -> None:
    data = compose_config([f"data={name}"]).data
    assert (data.num_classes, data.images) == CLASSES_AND_IMAGES[name]


@pytest.mark.parametrize("name", CLASSES_AND_IMAGES)
def test_a_data_set_of_the_field_has_a_recipe_that_verifies_on_what_lies_beside_it(name: str) -> None:
    configs = [_config(recipe) for recipe in _names("recipe")]
    paths = compose_config([f"data={name}"]).data.paths
    of_it = [config for config in configs if config.data.paths == paths]
    assert of_it
    assert {Path(path).parent for config in of_it for path in config.evaluate.sets} == {Path(paths[0]).parent}


@pytest.mark.parametrize(
    ("recipe", "steps", "drops"),
    [
        ("casia_r50", 32_000, [20_000, 28_000]),
        ("vggface2_r50", 90_000, [40_000, 60_000, 80_000]),
        ("ms1mv2_r100", 180_000, [100_000, 160_000]),
    ],
)
def test_a_recipe_of_the_paper_drops_its_learning_rate_where_the_paper_does(
    recipe: str, steps: int, drops: list[int]
) -> None:
    schedule = _schedule(_config(recipe))
    assert schedule.total_steps == steps
    for count, drop in enumerate(drops):
        assert [schedule(drop - 1), schedule(drop)] == pytest.approx([0.1**count, 0.1 ** (count + 1)])


def test_a_recipe_takes_another_data_set_and_backbone_from_the_command_line() -> None:
    config = compose_config(["recipe=ms1mv3_r50", "data=casia", "backbone=r18"])
    assert (config.data.num_classes, config.backbone.name) == (10_572, "r18")
    assert isinstance(config.margin, CombinedConfig)
    assert config.margin.gradient == "straight_through"


@pytest.mark.parametrize("preset", ["adaface", "dali_aug", "flip", "strong"])
def test_an_augmentation_is_chosen_by_name_and_outweighs_the_recipes(preset: str) -> None:
    config = compose_config(["recipe=small_real", "data.path=train.rec", f"augment={preset}"])
    config.validate()
    chosen = compose_config([f"augment={preset}"]).data.augment
    if preset != "flip":
        assert config.data.augment.color == chosen.color
        assert not Augment(config.data.augment, 0).only_flips
