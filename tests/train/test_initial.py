"""What a run takes over from another: weights, centers that fit them, parts that stay, and how fast others move."""

from pathlib import Path

import pytest
import torch
from small_runs import losses_of_run, small_config, small_trainer
from support import run_ranks
from torch import Tensor
from torch.nn import functional as F

from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.errors import ConfigError, DataError
from arcdist.runtime import collectives

EVERY_PART = ["conv1", "bn1", "conv2", "bn2", "layer1", "layer2", "layer3", "bn3", "fc", "features"]
MEANS = {"head": {"initial": "class_means"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("first") / "run"
    losses_of_run(small_config(folder, faces / "train.rec"))
    return folder


def _centers(config) -> Tensor:
    centers = small_trainer(config).step.head.centers.detach()
    return collectives.gather_uneven_rows(centers)


def test_a_new_run_begins_with_the_weights_of_another(tmp_path: Path, faces: Path, trained: Path) -> None:
    other = small_trainer(small_config(trained, faces / "train.rec")).step.backbone.state_dict()
    config = small_config(tmp_path / "new", faces / "train.rec", {"init": str(trained), "seed": 8})
    begun = small_trainer(config)
    assert begun.step.count == 0
    assert all(torch.equal(tensor, other[key]) for key, tensor in begun.step.backbone.state_dict().items())


def test_a_run_that_is_resumed_takes_nothing_over_again(tmp_path: Path, faces: Path, trained: Path) -> None:
    config = small_config(tmp_path / "new", faces / "train.rec", {"init": str(trained)}, MEANS)
    losses_of_run(config)
    config.init = str(tmp_path / "gone")
    assert small_trainer(config).step.count == 6


def test_weights_of_another_backbone_are_refused_by_name(tmp_path: Path, faces: Path, trained: Path) -> None:
    config = small_config(
        tmp_path / "new", faces / "train.rec", {"init": str(trained)}, {"backbone": {"name": "small"}}
    )
    with pytest.raises(DataError, match="weights of another backbone.*they look like tiny with embedding_dim=32"):
        small_trainer(config)
    config.init = str(tmp_path / "none")
    with pytest.raises(DataError, match="no such file or folder"):
        small_trainer(config)


def test_class_means_are_those_of_every_image_on_any_number_of_ranks(
    tmp_path: Path, faces: Path, trained: Path
) -> None:
    changes = ({"init": str(trained)}, MEANS)
    start = small_trainer(small_config(tmp_path / "start", faces / "train.rec", {"init": str(trained)})).step
    start.backbone.eval()
    with RecordDataset(faces / "train.rec") as dataset, torch.no_grad():
        labels, payloads = zip(*(dataset.read(sample) for sample in range(len(dataset))))
        images = torch.stack([torch.from_numpy(decode(payload, "image")) for payload in payloads])
        embeddings = F.normalize(start.backbone(images.permute(0, 3, 1, 2).float() / 127.5 - 1))
    sums = F.one_hot(torch.tensor(labels)).T.double() @ embeddings.double()
    expected = F.normalize(sums) * start.head.centers.detach().double().norm(dim=1, keepdim=True)
    for world_size in (1, 2, 3):
        config = small_config(tmp_path / f"{world_size}", faces / "train.rec", *changes)
        for centers in run_ranks(_centers, world_size, config):
            torch.testing.assert_close(centers.double(), expected, rtol=1e-4, atol=1e-6)


def _frozen_and_others(config) -> tuple[bool, bool, bool]:
    """Do a run, and return whether the first layer and its statistics stayed, and whether the rest moved."""
    trainer = small_trainer(config)
    before = {key: tensor.clone() for key, tensor in trainer.step.backbone.state_dict().items()}
    trainer.run()
    same = {key: torch.equal(tensor, before[key]) for key, tensor in trainer.step.backbone.state_dict().items()}
    frozen = [kept for key, kept in same.items() if key.startswith(("conv1.", "bn1.", "layer1."))]
    others = [kept for key, kept in same.items() if not key.startswith(("conv1.", "bn1.", "layer1."))]
    return len(frozen) > 10, all(frozen), not any(others)


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_frozen_keeps_its_weights_and_statistics(tmp_path: Path, faces: Path, world_size: int) -> None:
    changes = {"backbone": {"frozen": ["conv1", "bn1", "layer1"]}, "evaluate": {"sets": [str(faces / "held_out.bin")]}}
    config = small_config(tmp_path / "run", faces / "train.rec", changes)
    assert run_ranks(_frozen_and_others, world_size, config) == [(True, True, True)] * world_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": {"frozen": ["layr1"]}}, "backbone.frozen: 'layr1': no part .*; did you mean 'layer1'"),
        ({"backbone": {"frozen": EVERY_PART}}, "backbone.frozen: conv1, .*: nothing of the backbone is left to train"),
        ({"optim": {"lr_scales": ["stem:0.1"]}}, "optim.lr_scales: 'stem': no part .* .its parts: conv1"),
        ({"optim": {"lr_scales": ["layer1:0"]}}, "optim.lr_scales: layer1:0: must be above 0"),
        ({"optim": {"lr_scales": ["layer1"]}}, "optim.lr_scales: 'layer1': must be PART:NUMBER, such as layer1:0.1"),
        ({"head": {"initial": "class_means", "subcenters": 2}}, "head.subcenters must be 1"),
        ({"head": {"initial": "zero"}}, "head.initial: 'zero': must be one of random, class_means"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(tmp_path: Path, faces: Path, change, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_trainer(small_config(tmp_path / "run", faces / "train.rec", change))
