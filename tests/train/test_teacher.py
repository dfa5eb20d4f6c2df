"""A teacher's embeddings beside the head's loss: its value, its gradient on any number of ranks, its errors."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import losses_of_run, small_config, small_trainer, stop_after_four_steps, weights
from support import run_ranks

from arcdist.errors import ConfigError, DataError
from arcdist.train.config import TrainConfig


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of embeddings of the 60 images of ``faces``."""
    path = tmp_path_factory.mktemp("teacher") / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32))
    return path


def _config(folder: Path, faces: Path, rows: Path, *changes: dict[str, Any]) -> TrainConfig:
    given = {"teacher": {"embeddings": str(rows), "weight": 5.0}}
    return small_config(folder, faces / "train.rec", given, *changes)


def _first_step(config: TrainConfig) -> tuple[float, torch.Tensor]:
    """Return the first step's loss and what the backbone's first weights are after it."""
    trainer = small_trainer(config)
    loss = trainer.step(next(trainer._batches()))
    return float(loss), next(trainer.step.backbone.parameters()).detach().clone()


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_its_loss_is_added_to_the_heads(tmp_path: Path, faces: Path, rows: Path, kind: str) -> None:
    taught = _config(tmp_path / "taught", faces, rows, {"teacher": {"loss": kind}})
    alone = small_trainer(small_config(tmp_path / "alone", faces / "train.rec"))
    batch = next(alone._batches())
    samples = alone.order.samples(0, 24)
    targets = torch.from_numpy(np.load(rows)[samples]).double()
    with torch.no_grad():  # in micro-batches, which BatchNorm sees one of at a time
        alone.step.backbone.double()
        embeddings = torch.cat([alone.step.backbone(part.double()) for part in batch.images.split(4)])
    if kind == "cosine":
        expected = 5 * (1 - torch.nn.functional.cosine_similarity(embeddings, targets)).mean()
    else:
        expected = 5 * (embeddings - targets).square().mean()
    with_teacher = _first_step(taught)[0]
    without, _ = _first_step(small_config(tmp_path / "without", faces / "train.rec"))
    assert with_teacher - without == pytest.approx(float(expected), rel=1e-4)


def test_losses_and_weights_do_not_depend_on_the_number_of_ranks(tmp_path: Path, faces: Path, rows: Path) -> None:
    runs = {}
    for world_size in (1, 2, 3):
        config = _config(tmp_path / str(world_size), faces, rows, {"optim": {"name": "sgd", "lr": 0.01}})
        runs[world_size] = run_ranks(losses_of_run, world_size, config)[0], weights(tmp_path / str(world_size))
    for losses, numbers in (runs[2], runs[3]):
        torch.testing.assert_close(losses, runs[1][0], rtol=1e-5, atol=0)
        torch.testing.assert_close(numbers, runs[1][1], rtol=1e-3, atol=1e-5)


def test_a_run_with_a_teacher_goes_on_from_a_checkpoint_with_the_same_bits(
    tmp_path: Path, faces: Path, rows: Path
) -> None:
    run_ranks(losses_of_run, 2, _config(tmp_path / "whole", faces, rows))
    run_ranks(stop_after_four_steps, 2, _config(tmp_path / "cut", faces, rows))
    run_ranks(losses_of_run, 2, _config(tmp_path / "cut", faces, rows))
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_student_comes_nearer_to_its_teacher(tmp_path: Path, faces: Path) -> None:
    label = np.repeat(np.arange(10), 6)
    np.save(tmp_path / "one_hot.npy", np.eye(32, dtype=np.float32)[label])
    learning = {"optim": {"lr": 0.01, "schedule": {"warmup_steps": 0}}, "losses": {"softmax": 1e-6}}
    config = _config(
        tmp_path / "run", faces, tmp_path / "one_hot.npy", learning, {"train": {"steps": 40, "micro_batch_size": 24}}
    )
    losses = losses_of_run(config)
    assert losses[0] > 4.5, "random embeddings are orthogonal to any teacher's"
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


def test_a_selection_of_images_has_the_rows_of_its_own_images(tmp_path: Path, faces: Path, rows: Path) -> None:
    config = _config(tmp_path / "run", faces, rows, {"data": {"select": {"classes": [3, 8]}}})
    trainer = small_trainer(config)
    assert trainer.step.teacher is not None
    got = trainer.step.teacher.targets(0)
    expected = np.load(rows)[18:48][trainer.order.samples(0, 24)]
    assert np.array_equal(got.numpy(), expected)


def _people(folder: Path, faces: Path) -> dict[str, Any]:
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(faces / f"train{suffix}", folder / f"other{suffix}")
    return {"data": {"path": [str(faces / "train.rec"), str(folder / "other.rec")]}}


def test_what_is_no_teacher_of_this_run_is_refused(tmp_path: Path, faces: Path, rows: Path) -> None:
    def refused(kind: type[Exception], words: str, *changes: dict[str, Any]) -> None:
        with pytest.raises(kind, match=words):
            small_trainer(_config(tmp_path / "run", faces, rows, *changes))

    refused(ConfigError, "holds 32 numbers.*set backbone.embedding_dim=32", {"backbone": {"embedding_dim": 16}})
    refused(ConfigError, "on_bad_record: 'skip'", {"data": {"loader": {"on_bad_record": "skip"}}})
    refused(ConfigError, "are of the records of one .rec, and data.path is", _people(tmp_path, faces))
    refused(ConfigError, "teacher.loss: 'kl': must be one of cosine, mse", {"teacher": {"loss": "kl"}})
    refused(ConfigError, "teacher.weight: 0.0: must be above 0", {"teacher": {"weight": 0.0}})
    refused(DataError, "is no array of embeddings", {"teacher": {"embeddings": str(tmp_path / "none.npy")}})
    np.save(tmp_path / "short.npy", np.zeros((59, 32), np.float32))
    short = {"teacher": {"embeddings": str(tmp_path / "short.npy")}}
    refused(DataError, "not a row of numbers for each of the 60", short)
