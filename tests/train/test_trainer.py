"""Whole runs on rendered and on real faces."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import losses_of_run, small_config, small_trainer, stop_after_four_steps, weights
from support import run_ranks

from arcdist.checkpoint.marker import CheckpointError, read_marker, write_marker
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.margins.adaptive import AdaFaceConfig
from arcdist.margins.mined import CurricularFaceConfig
from arcdist.runtime import collectives, float32_products
from arcdist.runtime.stopping import StopRequest
from arcdist.runtime.world import World
from arcdist.train.config import TrainConfig
from arcdist.train.trainer import Trainer
from arcdist.train.void_steps import DivergedError


def _config(folder: Path, rec: Path, *changes: dict[str, Any]) -> TrainConfig:
    return small_config(folder, rec, {"checkpoint": {"background": True}}, *changes)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_a_run_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(tmp_path, faces, world_size) -> None:
    rec = faces / "train.rec"
    shared = {"train": {"micro_batch_size": 2}}  # 24 images over up to four ranks
    whole = _config(tmp_path / "whole", rec, shared)
    run_ranks(losses_of_run, world_size, whole)
    # 60 images in batches of 24: step 4 lies inside of the second epoch, and the schedule is that of six steps.
    run_ranks(stop_after_four_steps, world_size, _config(tmp_path / "cut", rec, shared))
    run_ranks(losses_of_run, world_size, _config(tmp_path / "cut", rec, shared))
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


DEEP: dict[str, Any] = {  # everything of the head that has a state
    "head": {"sample_rate": 0.5, "subcenters": 2},
    "losses": {"center": {"weight": 0.01}, "intra": {"weight": 0.1}},
    "margin": {"interclass_filter": 0.9},
    "optim": {"name": "sgd", "lr": 0.02},
}


@pytest.mark.parametrize("margin", [CurricularFaceConfig(scale=16.0), AdaFaceConfig(scale=16.0)], ids=lambda m: m.name)
def test_a_head_with_state_goes_on_from_a_checkpoint_on_any_number_of_ranks(tmp_path, faces, margin) -> None:
    rec = faces / "train.rec"

    def config(name: str) -> TrainConfig:
        made = _config(tmp_path / name, rec, DEEP)
        made.margin = replace(margin, interclass_filter=0.9)
        return made

    whole = run_ranks(losses_of_run, 2, config("whole"))[0]
    run_ranks(stop_after_four_steps, 2, config("cut"))
    assert run_ranks(losses_of_run, 2, config("cut"))[0] == whole[4:]
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    run_ranks(stop_after_four_steps, 2, config("other"))
    torch.testing.assert_close(run_ranks(losses_of_run, 3, config("other"))[0], whole[4:], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": {"update": "fused"}, "train": {"precision": "fp16"}}, "needs the whole gradient"),
        ({"head": {"update": "fused"}, "losses": {"inter": {"weight": 1.0}}}, "losses.inter moves every center"),
        ({"head": {"update": "separate", "dtype": "bf16"}}, "head.dtype: 'bf16': needs head.update=fused"),
        ({"head": {"subcenters": 2}, "losses": {"inter": {"weight": 1.0}}}, "head.subcenters must be 1"),
    ],
)
def test_what_cannot_be_combined_is_refused_by_its_key(tmp_path, faces, change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        losses_of_run(_config(tmp_path / "run", faces / "train.rec", change))


def test_centers_in_bf16_train(tmp_path, faces) -> None:
    narrow = losses_of_run(_config(tmp_path / "narrow", faces / "train.rec", {"head": {"dtype": "bf16"}}))
    full = losses_of_run(_config(tmp_path / "full", faces / "train.rec"))
    assert narrow != full
    torch.testing.assert_close(narrow, full, rtol=0.02, atol=0)


def _asked_on_rank_1(config: TrainConfig) -> int:
    """Do a run in which rank 1 alone gets SIGTERM before its third step; return the steps that this rank did."""
    world = World(collectives.rank(), collectives.world_size(), 0, torch.device("cpu"))
    with StopRequest() as stop:
        trainer = Trainer(config, world, stop)
        batches = trainer._batches

        def interrupted() -> Iterator[Batch]:
            for number, batch in enumerate(batches()):
                if number == 2 and world.rank == world.size - 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        trainer._batches = interrupted
        trainer.run()
    return trainer.step.count


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_the_same_command_goes_on(
    tmp_path, faces, world_size
) -> None:
    rec = faces / "train.rec"
    run_ranks(losses_of_run, world_size, _config(tmp_path / "whole", rec))
    assert run_ranks(_asked_on_rank_1, world_size, _config(tmp_path / "cut", rec)) == [3] * world_size
    assert json.loads((tmp_path / "cut/STOPPED.json").read_text())["step"] == 3
    run_ranks(losses_of_run, world_size, _config(tmp_path / "cut", rec))
    assert not (tmp_path / "cut/STOPPED.json").exists()
    assert json.loads((tmp_path / "cut/FINISHED.json").read_text())["step"] == 6
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_checkpoint_of_two_ranks_goes_on_with_one_and_three(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    run_ranks(losses_of_run, 1, _config(tmp_path / "whole", rec))
    expected = weights(tmp_path / "whole")
    for world_size in (1, 3):
        folder = tmp_path / str(world_size)
        run_ranks(stop_after_four_steps, 2, _config(folder, rec))
        run_ranks(losses_of_run, world_size, _config(folder, rec))
        assert float((weights(folder) - expected).norm() / expected.norm()) < 1e-4


def test_fifty_steps_on_real_faces_lose_the_same_on_one_and_two_ranks(tmp_path: Path, data_root: Path) -> None:
    longer = {
        "train": {"steps": 50, "global_batch_size": 64, "micro_batch_size": 32},
        "checkpoint": {"every": 0},
    }
    small = {
        "backbone": {"name": "small"},
        "data": {"image_size": 112},
        "train": {"image_sizes": [64], "image_sizes_until": [1.0]},
    }
    rec = data_root / "lfw_train.rec"
    (alone,) = run_ranks(losses_of_run, 1, _config(tmp_path / "1", rec, longer, small))
    two = run_ranks(losses_of_run, 2, _config(tmp_path / "2", rec, longer, small))[0]
    assert len(alone) == len(two) == 50
    # Rounding grows as a net trains: weights that were changed by 1e-7 part as much (5e-4 after 50 steps).
    torch.testing.assert_close(torch.tensor(two[:10]), torch.tensor(alone[:10]), rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.tensor(two), torch.tensor(alone), rtol=5e-3, atol=0)
    assert alone[-1] < alone[0]


def test_a_finished_run_leaves_its_summary_its_weights_and_three_pictures(tmp_path: Path, faces: Path) -> None:
    evaluate = {"evaluate": {"sets": [str(faces / "held_out.bin")], "at_start": True, "every": 3}}
    run_ranks(losses_of_run, 2, _config(tmp_path, faces / "train.rec", evaluate))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["images_seen"] == 144
    assert 0 <= summary["accuracy"] <= 1
    assert summary["sets"]["held_out"]["pairs"] == 40
    assert summary["images_per_s"] > 0
    for picture in ("loss.png", "angles.png", "roc.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").iterdir())
    evaluations = [
        line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "held_out/accuracy" in line
    ]
    assert [json.loads(line)["step"] for line in evaluations] == [0, 3, 6]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == ["step-000000004", "step-000000006"]


def _diverge(config: TrainConfig) -> str:
    trainer = small_trainer(config)
    with torch.no_grad():
        trainer.step.head.centers.fill_(torch.nan)
    with pytest.raises(DivergedError) as raised:
        trainer.run()
    return str(raised.value)


def test_a_loss_that_is_no_number_stops_every_rank_before_it_is_saved(tmp_path: Path, faces: Path) -> None:
    for answer in run_ranks(
        _diverge, 2, _config(tmp_path, faces / "train.rec", {"train": {"void": {"policy": "stop"}}})
    ):
        assert "step 1: loss or gradients are not finite (the loss is nan), 1 in a row; lower optim.lr" in answer
    assert not list((tmp_path / "checkpoints").glob("step-*"))


def test_a_record_that_was_cut_does_not_keep_a_run_from_resuming(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    run_ranks(stop_after_four_steps, 1, _config(tmp_path, rec))
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss": 2.0}\n{"step": 4, "lo')
    assert len(run_ranks(losses_of_run, 1, _config(tmp_path, rec))[0]) == 3


def test_a_refused_configuration_leaves_the_runs_own(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    run_ranks(stop_after_four_steps, 1, _config(tmp_path, rec))
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(CheckpointError):
        Trainer(_config(tmp_path, rec, {"seed": 4}), World(0, 1, 0, torch.device("cpu")))
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_goes_through_its_image_sizes(tmp_path: Path, faces: Path) -> None:
    sizes = {"train": {"image_sizes": [16, 32], "image_sizes_until": [0.5, 1.0]}}
    trainer = Trainer(_config(tmp_path, faces / "train.rec", sizes), World(0, 1, 0, torch.device("cpu")))
    assert [batch.images.shape[2] for batch in trainer._batches()] == [16, 16, 16, 32, 32, 32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": {"embedding_dim": 16}}, "another backbone.embedding_dim; .*\n  backbone.embedding_dim: 32 → 16"),
        ({"optim": {"name": "sgd"}}, "another optim.name; .*\n  optim.name: adamw → sgd"),
        ({"seed": 4}, "another seed; .*\n  seed: 3 → 4"),
    ],
)
def test_resuming_another_model_is_refused(tmp_path: Path, faces: Path, change: dict, message: str) -> None:
    rec = faces / "train.rec"
    run_ranks(stop_after_four_steps, 1, _config(tmp_path, rec))
    with pytest.raises(CheckpointError, match=message):
        Trainer(_config(tmp_path, rec, change), World(0, 1, 0, torch.device("cpu")))


def test_a_checkpoint_that_no_run_wrote_is_refused_by_what_it_does_not_say(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    run_ranks(stop_after_four_steps, 1, _config(tmp_path, rec))
    (newest,) = (tmp_path / "checkpoints").glob("step-*4")
    marker = read_marker(newest)
    del marker["scaler"]
    write_marker(newest, marker)
    with pytest.raises(CheckpointError, match="does not say scaler"):
        Trainer(_config(tmp_path, rec), World(0, 1, 0, torch.device("cpu")))


@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_a_run_goes_on_with_the_products_that_it_began_with(tmp_path: Path, faces: Path, products: str) -> None:
    config = _config(tmp_path, faces / "train.rec", {"train": {"precision": "bf16"}})
    run_ranks(stop_after_four_steps, 1, config)
    (newest,) = (tmp_path / "checkpoints").glob("step-*4")
    write_marker(newest, read_marker(newest) | {"products": products})
    trainer = Trainer(config, World(0, 1, 0, torch.device("cpu")))
    assert trainer.step.head.tuning.products == products


@pytest.mark.parametrize("library", ["blas", "onednn", ""])
def test_a_run_goes_on_with_the_float32_library_that_it_began_with(
    tmp_path: Path, faces: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float32_products, "is_float32", lambda name: True)  # as on a CPU without AMX
    config = _config(tmp_path, faces / "train.rec")
    run_ranks(stop_after_four_steps, 1, config)
    (newest,) = (tmp_path / "checkpoints").glob("step-*4")
    marker = read_marker(newest)
    del marker["float32_products"]
    write_marker(newest, marker | ({"float32_products": library} if library else {}))
    with float32_products.multiplied_by("onednn" if library != "onednn" else "blas"):
        Trainer(config, World(0, 1, 0, torch.device("cpu")))
        assert float32_products.library() == (library or "blas")  # without a word: a run of before there was a choice


def test_a_folder_that_holds_a_run_is_not_begun_again(tmp_path: Path, faces: Path) -> None:
    rec = faces / "train.rec"
    run_ranks(stop_after_four_steps, 1, _config(tmp_path, rec))
    with pytest.raises(ConfigError, match="holds a run"):
        Trainer(_config(tmp_path, rec, {"resume": "never"}), World(0, 1, 0, torch.device("cpu")))


def _refusal(config: TrainConfig) -> str:
    try:
        losses_of_run(config)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_more_ranks_than_classes_are_refused_on_every_rank(tmp_path: Path, faces: Path) -> None:
    from arcdist.data.synthetic import SyntheticConfig, write_record

    write_record(SyntheticConfig(identities=2, images_per_identity=6, image_size=32), tmp_path / "two.rec", workers=1)
    batch = {"train": {"global_batch_size": 12}}
    for answer in run_ranks(_refusal, 3, _config(tmp_path / "run", tmp_path / "two.rec", batch)):
        assert "ConfigError: 2 classes cannot be shared out over 3 ranks" in answer


def test_a_missing_file_is_told_by_one_rank_and_stops_all(tmp_path: Path) -> None:
    first, second = run_ranks(_refusal, 2, _config(tmp_path / "run", tmp_path / "none.rec"))
    assert "none.rec" in first
    assert second.startswith("PeerError")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"num_classes": 11}}, "data.num_classes: 11, but .* has 10"),
        ({"data": {"images": 59}}, "data.images: 59, but .* has 60"),
        ({"data": {"image_size": 96}}, "data.image_size: 96, but .* 32×32"),
        ({"folder": "/proc/arcdist"}, "folder: /proc/arcdist: cannot be written"),
    ],
)
def test_a_configuration_that_the_data_contradicts_is_refused(tmp_path, faces, change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(_config(tmp_path, faces / "train.rec", change), World(0, 1, 0, torch.device("cpu")))
