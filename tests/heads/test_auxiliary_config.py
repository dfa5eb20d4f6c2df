"""Which losses a configuration asks for, and which values are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from arcdist.errors import ConfigError
from arcdist.heads.auxiliary import LossesConfig
from arcdist.heads.auxiliary.triplet import TripletLoss

PRESETS = sorted((Path(__file__).parents[2] / "configs/losses").glob("*.yaml"))
CPU = torch.device("cpu")


def _config(*values: str) -> LossesConfig:
    config: Any = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(LossesConfig), OmegaConf.from_dotlist(list(values)))
    )
    return config


def test_without_a_word_there_is_only_the_margin_softmax() -> None:
    config = _config()
    assert config.softmax == 1
    assert config.build(8, 10, CPU) == {}


def test_what_has_a_weight_is_built_with_its_own_values() -> None:
    losses = _config("intra.weight=0.5", "triplet.weight=2", "triplet.margin=0.2", "triplet.mining=hard").build(
        8, 10, CPU
    )
    assert {name: weight for name, (weight, _) in losses.items()} == {"intra": 0.5, "triplet": 2}
    triplet = losses["triplet"][1]
    assert isinstance(triplet, TripletLoss)
    assert (triplet.margin, triplet.mining) == (0.2, "hard")


def test_every_loss_can_be_built_by_name() -> None:
    names = ("center", "intra", "inter", "contrastive", "triplet", "range", "marginal", "energy")
    losses = _config(*(f"{name}.weight=1" for name in names)).build(8, 10, CPU)
    assert tuple(losses) == names
    assert [name for name, (_, loss) in losses.items() if loss.touches_centers] == ["inter", "energy"]
    assert [name for name, (_, loss) in losses.items() if loss.sharded_tensors()] == ["center"]


@pytest.mark.parametrize(
    "value",
    [
        *("softmax=-1", "softmax=nan", "intra.weight=-0.1", "inter.weight=inf"),
        *("center.rate=1.5", "center.rate=nan", "energy.power=-1", "contrastive.margin=0", "triplet.margin=-0.35"),
        *("triplet.metric=cosine", "triplet.mining=easy", "range.largest=0", "range.intra=-1", "range.inter=nan"),
        *("range.margin=0", "marginal.threshold=0", "marginal.margin=-1"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_its_key(value: str) -> None:
    key = value.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^losses\.{key}: "):
        _config(value).validate()


@pytest.mark.parametrize("other", ["intra.weight=0", "inter.weight=1", "energy.weight=1"])
def test_a_run_needs_a_loss_that_its_net_can_learn_from(other: str) -> None:
    with pytest.raises(ConfigError, match="losses over embeddings|another loss over embeddings"):
        _config("softmax=0", other).validate()
    _config("softmax=0", other, "triplet.weight=1").validate()


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_adds_the_loss_that_it_is_named_after(path: Path) -> None:
    config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LossesConfig), OmegaConf.load(path)))
    assert path.stem in config.build(8, 10, CPU)
