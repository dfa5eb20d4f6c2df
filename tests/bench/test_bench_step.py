"""``arcdist bench step``: what is timed is the same training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arcdist.bench.whole_steps import STEP_METHODS, StepCase
from arcdist.cli.main import main
from arcdist.runtime.world import World

WORLD = World(0, 1, 0, torch.device("cpu"))
EXACT = [name for name, method in STEP_METHODS.items() if method.precision == "fp32" and not method.compiled]


def losses(name: str, case: StepCase) -> list[float]:
    """Return the losses of two steps from the same weights and centers on the same batches."""
    step = STEP_METHODS[name].build(case, WORLD)
    centers = step.head.centers  # ty: ignore[unresolved-attribute]
    with torch.no_grad():
        centers.copy_(torch.randn(centers.shape, generator=torch.Generator().manual_seed(2)))
    batches = case.batches()
    return [step(batch.images, batch.labels).item() for batch, _ in zip(batches, range(2))]


@pytest.mark.parametrize("backbone", ["mbf", "small_thin"])
def test_every_way_to_do_a_step_trains_alike(backbone: str) -> None:
    case = StepCase(backbone, num_classes=50, batch_size=4, embedding_dim=512)
    expected = losses("plain_fp32", case)
    assert expected[1] != pytest.approx(expected[0], rel=1e-2)  # so that the updates count
    for name in EXACT:
        assert losses(name, case) == pytest.approx(expected, rel=5e-3), name


def test_the_plain_step_in_fp16_begins_with_the_wide_loss_and_finds_a_scale_for_its_gradients() -> None:
    case = StepCase("small_thin", num_classes=50, batch_size=4, embedding_dim=512)
    wide = losses("plain_fp32", case)
    assert losses("plain_fp16", case)[0] == pytest.approx(wide[0], rel=2e-3)
    step = STEP_METHODS["plain_fp16"].build(case, WORLD)
    found = [step(batch.images, batch.labels).item() for batch, _ in zip(case.batches(), range(8))]
    assert np.isfinite(found).all()
    assert 1 <= step._scaler.get_scale() < 65536  # ty: ignore[unresolved-attribute]


def test_a_row_says_how_much_faster_a_step_is(tmp_path: Path) -> None:
    few = ["--quick", "--backbones", "tiny", "batch=4", "classes=20", "rounds=1", "turn_s=0", "--threads", "1"]
    assert main(["bench", "step", *few, "methods=plain_fp32,ours_fp32", "--json", f"{tmp_path}/step.json"]) == 0
    plain, ours = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert plain["speedup"] == 1
    assert ours["speedup"] == pytest.approx(plain["median_s"] / ours["median_s"], abs=1e-3)
    assert ours["images_per_s"] == pytest.approx(4 / ours["median_s"], rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods=theirs"], "methods: 'theirs': must be of plain_fp32, "),
        (["backbones=r19"], "backbones: 'r19': must be of r18, "),
        (["batch=6", "ranks=4"], "batch: 6: must be 2 at least, and a multiple of ranks, 4"),
    ],
)
def test_a_wrong_argument_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", *arguments]) == 2
    assert message in capsys.readouterr().err
