"""A training of insightface's arcface_torch goes on here: from its sharded files, on any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config, small_trainer
from support import run_ranks
from torch import Tensor, nn

from arcdist.backbones import create_backbone
from arcdist.checkpoint.arcface_torch import load_arcface_torch
from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.state import training_tensors
from arcdist.optim.optimizers import OptimConfig
from arcdist.train.config import TrainConfig
from arcdist.train.trainer import Trainer

SGD = {"optim": {"name": "sgd", "lr": 0.05, "schedule": {"name": "polynomial", "warmup_steps": 0}}}
ADAMW = {"optim": {"name": "adamw", "lr": 1e-3}}
EIGHT = {"train": {"steps": 8}}
EPOCHS, STEPS = 2, 5  # 60 images in batches of 24


def _steps(trainer: Trainer, until: int) -> dict[str, Tensor]:
    """Let a run go on to a step, and return its tensors then."""
    trainer.step.warm_up(32)
    for batch in trainer._batches():
        trainer.step(batch)
        if trainer.step.count == until:
            break
    trainer.step.settle()
    return {name: tensor.clone() for name, tensor in trainer._tensors().items()}


def _save_as_arcface_torch(
    tensors: dict[str, Tensor], folder: Path, ranks: int, optimizer: str, network: nn.Module | None = None
) -> None:
    """Write what train_v2.py writes with ``save_all_states``, by the classes that it uses."""
    folder.mkdir(exist_ok=True)
    centers = tensors["head.centers"]
    num_classes = len(centers)
    for rank in range(ranks):
        rows = num_classes // ranks + int(rank < num_classes % ranks)
        start = num_classes // ranks * rank + min(rank, num_classes % ranks)
        backbone = create_backbone("tiny", 32) if network is None else network
        backbone.load_state_dict(
            {k.removeprefix("backbone."): t for k, t in tensors.items() if k.startswith("backbone.")}
        )
        softmax = nn.Module()
        softmax.weight = nn.Parameter(centers[start : start + rows].clone())
        kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
        options = {"momentum": 0.9} if optimizer == "sgd" else {}
        opt = kind([{"params": backbone.parameters()}, {"params": softmax.parameters()}], lr=0.05, **options)
        for name, parameter in [*backbone.named_parameters(prefix="backbone"), ("head.centers", softmax.weight)]:
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            is_centers = name == "head.centers"
            opt.state[parameter] = {
                key: tensor[start : start + rows].clone() if is_centers and tensor.ndim else tensor.clone()
                for key, tensor in state.items()
            }
        scheduler = torch.optim.lr_scheduler.PolynomialLR(opt, 100, 2.0)
        torch.save(
            {
                "epoch": EPOCHS,
                "global_step": STEPS,
                "state_dict_backbone": backbone.state_dict(),
                "state_dict_softmax_fc": softmax.state_dict(),
                "state_optimizer": opt.state_dict(),
                "state_lr_scheduler": scheduler.state_dict(),
            },
            folder / f"checkpoint_gpu_{rank}.pt",
        )


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """Return a folder with ``sgd`` and ``adamw``, trainings of three ranks, and a run's tensors then and at its end."""
    folder = tmp_path_factory.mktemp("theirs")
    for name, changes in (("sgd", SGD), ("adamw", ADAMW)):
        trainer = small_trainer(small_config(folder / f"begun_{name}", faces / "train.rec", changes, EIGHT))
        tensors = _steps(trainer, STEPS)
        torch.save({"then": tensors, "end": _steps(trainer, 8)}, folder / f"{name}.pt")
        _save_as_arcface_torch(tensors, folder / name, 3, name)
    return folder


@pytest.mark.parametrize(("name", "changes"), [("sgd", SGD), ("adamw", ADAMW)])
def test_a_run_that_goes_on_from_its_files_ends_as_if_it_had_never_stopped(
    theirs: Path, faces: Path, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    trainer = small_trainer(small_config(tmp_path, faces / "train.rec", changes, EIGHT, {"resume": str(theirs / name)}))
    assert trainer.step.count == STEPS
    expected = torch.load(theirs / f"{name}.pt", weights_only=True)["end"]
    torch.testing.assert_close(_steps(trainer, 8), expected, rtol=0, atol=0)


def _restored(config: TrainConfig) -> dict[str, Tensor]:
    tensors = small_trainer(config)._tensors()
    return {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for name, tensor in tensors.items()
    }


def test_files_of_three_ranks_are_read_by_two(theirs: Path, faces: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path, faces / "train.rec", SGD, {"resume": str(theirs / "sgd")})
    expected = torch.load(theirs / "sgd.pt", weights_only=True)["then"]
    for restored in run_ranks(_restored, 2, config):
        torch.testing.assert_close(restored, expected, rtol=0, atol=0)


def test_the_same_command_started_again_goes_on_with_what_it_has_done_itself(
    theirs: Path, faces: Path, tmp_path: Path
) -> None:
    config = small_config(tmp_path, faces / "train.rec", SGD, {"resume": str(theirs / "sgd")})
    trainer = small_trainer(config)
    _steps(trainer, 6)
    trainer._save(wait=True)
    assert small_trainer(config).step.count == 6


def test_a_frozen_parameter_counts_where_its_optimizer_numbers_them(tmp_path: Path) -> None:
    """An iResNet's last scale is among the parameters, but has no momentum."""
    torch.manual_seed(0)
    backbone, centers = create_backbone("small_thin", 8), nn.Parameter(torch.randn(5, 8))
    optimizer = OptimConfig().build(backbone, centers)
    for state in optimizer.state.values():
        state["momentum_buffer"].normal_()
    tensors = training_tensors(backbone, centers, 5, optimizer)
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    assert "optimizer.backbone.features.weight.momentum_buffer" not in expected
    _save_as_arcface_torch(expected, tmp_path, 2, "sgd", create_backbone("small_thin", 8))
    for tensor in tensors.values():
        tensor.detach().zero_()
    assert load_arcface_torch(tmp_path, tensors) == EPOCHS
    torch.testing.assert_close(tensors, expected, rtol=0, atol=0)


def _broken(theirs: Path, folder: Path, change) -> Path:
    """Copy the three files, and let ``change(rank, content)`` make other content of each, or None for no file."""
    folder.mkdir()
    for rank in range(3):
        content = change(rank, torch.load(theirs / "sgd" / f"checkpoint_gpu_{rank}.pt", weights_only=True))
        if content is not None:
            torch.save(content, folder / f"checkpoint_gpu_{rank}.pt")
    return folder


@pytest.mark.parametrize(
    ("change", "changes", "message"),
    [
        (lambda rank, c: None if rank == 1 else c, SGD, "checkpoint_gpu_1.pt: No such file .*; every rank's file"),
        (
            lambda rank, c: None if rank == 2 else c,
            SGD,
            "head.centers is .7, 32. there, and .10, 32. here; one row a cl",
        ),
        (lambda rank, c: c | {"epoch": 2 + rank}, SGD, "its files are of different epochs .2, 3, 4."),
        (lambda rank, c: {"epoch": 2}, SGD, "not laid out as arcface_torch's are .KeyError.'state_dict_softmax_fc"),
        (lambda rank, c: [c], SGD, "not laid out as arcface_torch's are .TypeError"),
        (lambda rank, c: c, ADAMW, "backbone= and optim= must be those that it was trained with"),
        (lambda rank, c: c, SGD | {"backbone": {"embedding_dim": 16}}, r"is \[32\] there, and \[16\] here|is \[32, "),
        (lambda rank, c: c, SGD | {"backbone": {"name": "small"}}, r"is \[32, .* there, and \[48, .* here"),
    ],
    ids=["hole", "last missing", "epochs", "epoch only", "list", "optimizer", "embedding_dim", "backbone"],
)
def test_what_cannot_be_gone_on_from_is_refused(
    theirs: Path, faces: Path, tmp_path: Path, change, changes: dict[str, Any], message: str
) -> None:
    resume = {"resume": str(_broken(theirs, tmp_path / "broken", change))}
    with pytest.raises(CheckpointError, match=message):
        small_trainer(small_config(tmp_path / "run", faces / "train.rec", changes, resume))
