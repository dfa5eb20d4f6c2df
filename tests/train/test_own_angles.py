"""A run records how far embeddings lie from their own centers, the same on any number of ranks, and it is drawn."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import losses_of_run, small_config
from support import run_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arcdist.cli.main import main
from arcdist.heads import PartialFC
from arcdist.margins import Combined
from arcdist.margins.unnormalized import Softmax
from arcdist.runtime import collectives
from arcdist.train.own_angles import QUANTILES, own_angles, quantile_key


def test_the_quantiles_are_those_of_the_angles_to_the_own_centers() -> None:
    head, embeddings, labels = PartialFC(8, 5, Combined(m2=0.5)), torch.randn(33, 8), torch.arange(33) % 5
    assert own_angles(head) == {}
    head(embeddings, labels)
    cosine = torch.nn.functional.cosine_similarity(embeddings, head.centers.detach()[labels])
    expected = {quantile_key(share): float(cosine.arccos().quantile(share)) for share in QUANTILES}
    assert own_angles(head) == pytest.approx(expected, abs=1e-4)


def test_a_softmax_without_cosines_tells_of_no_angles() -> None:
    head = PartialFC(8, 5, Softmax())
    head(torch.randn(6, 8), torch.arange(6) % 5)
    assert own_angles(head) == {}


def of_this_rank(embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return what is recorded after a forward pass of this rank's rows."""
    rank, size = collectives.rank(), collectives.world_size()
    head = PartialFC(8, 5, Combined(m2=0.5))
    head(embeddings.chunk(size)[rank], labels.chunk(size)[rank])
    return own_angles(head)


def test_they_do_not_depend_on_the_number_of_ranks() -> None:
    rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 5
    alone = of_this_rank(*rows)
    assert all(told == pytest.approx(alone, abs=2e-5) for told in run_ranks(of_this_rank, 2, *rows))


def test_every_record_of_a_run_has_them_and_they_are_drawn(faces: Path, tmp_path: Path, capsys) -> None:
    config = small_config(tmp_path / "run", faces / "train.rec", {"train": {"steps": 2}})
    losses_of_run(config)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    angles = [[record[quantile_key(share)] for share in QUANTILES] for record in records if "loss" in record]
    assert len(angles) == 2
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"histograms": 0}).Reload()
    histograms = board.Histograms("train/theta_rad")
    assert [each.step for each in histograms] == [1, 2]
    for each, quantiles in zip(histograms, angles):
        assert each.histogram_value.min <= quantiles[0] <= quantiles[-1] <= each.histogram_value.max
        assert each.histogram_value.num == config.train.micro_batch_size  # of the last round
    assert all(each[0] > 0 and sorted(each) == each and each[-1] < 3.15 for each in angles)
    arguments = ["evaluate", f"{tmp_path}/run", "analysis=history", f"pictures={tmp_path}"]
    assert main([*arguments, "--json", f"{tmp_path}/h.json"]) == 0
    assert (tmp_path / "theta.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "h.json").read_text())["step"] == [1, 2]
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"st')
    assert main(arguments) == 1
    assert "metrics.jsonl: tells of no angles" in capsys.readouterr().err
