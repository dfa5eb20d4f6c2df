"""Centers held once in every group of ranks: the same loss, gradients and training as in one process."""

import copy
from pathlib import Path

import pytest
import torch
from small_runs import losses_of_run, small_config, stop_after_four_steps, weights
from support import run_ranks
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.heads import PartialFC
from arcdist.heads.auxiliary.centers import IntraLossConfig
from arcdist.heads.auxiliary.config import LossesConfig
from arcdist.margins import Margin
from arcdist.margins.adaptive import AdaFace
from arcdist.margins.combined import Combined
from arcdist.margins.mined import CurricularFace
from arcdist.ops.margin_logsumexp import Tuning
from arcdist.optim import OptimConfig
from arcdist.runtime import collectives
from arcdist.train.config import TrainConfig

DIM, ROWS, STEPS = 8, 24, 3
OPTIM = OptimConfig(lr=0.3, momentum=0.9, weight_decay=1e-2)


def _train(
    classes: int, margin: Margin, group_size: int, sample_rate: float, fused: bool, rounds: int
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, int, dict[str, Tensor]]:
    """Return losses, this rank's embeddings' gradient, its centers and their momentum, its first class, head state."""
    head = PartialFC(
        *(DIM, classes, copy.deepcopy(margin), sample_rate),
        tuning=Tuning(block=3),
        dtype=torch.float64,
        group_size=group_size,
    )
    layer = torch.nn.Linear(DIM, DIM, bias=False, dtype=torch.float64)
    torch.nn.init.eye_(layer.weight)
    optimizer = OPTIM.build(layer, head.centers)
    if fused:
        head.fuse(OPTIM.center_update(optimizer, head.centers, head.classes.start, 0))
    draws = torch.Generator().manual_seed(1)
    rank, size = collectives.rank(), collectives.world_size()
    losses, gradient = [], torch.empty(0)
    for step in range(STEPS):
        embeddings = 3 * torch.randn(ROWS, DIM, generator=draws, dtype=torch.float64)
        labels = torch.randint(classes, (ROWS,), generator=draws)
        mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
        rows = embeddings[mine].clone().requires_grad_()
        head.begin_step(step, labels[mine], rounds)
        loss = rows.new_zeros(())
        for part, own in zip(rows.chunk(rounds), labels[mine].chunk(rounds)):
            one = head(part, own) / rounds
            one.backward()
            loss += one.detach()
        head.end_step()
        assert rows.grad is not None
        optimizer.step()
        if fused:
            head.update_centers()
        optimizer.zero_grad()
        losses.append(loss)
        gradient = rows.grad / size
    momentum = optimizer.state[head.centers]["momentum_buffer"]
    return losses, gradient, head.centers.detach(), momentum, head.classes.start, head.replicated_tensors()


_MARGINS = [Combined(20.0, 1.0, 0.3, 0.1), AdaFace(20.0), CurricularFace(20.0)]


@pytest.mark.parametrize(("world_size", "group_size"), [(4, 2), (3, 1)])
@pytest.mark.parametrize("margin", _MARGINS, ids=["combined", "adaface", "curricularface"])
def test_groups_of_ranks_train_as_one_process_does(margin: Margin, world_size: int, group_size: int) -> None:
    _compare(world_size, group_size, margin)


@pytest.mark.parametrize(
    ("sample_rate", "fused", "rounds"), [(1.0, False, 1), (0.3, True, 1), (0.3, False, 2), (1.0, True, 2)]
)
def test_so_they_do_with_fewer_classes_in_rounds_and_without_fusing(
    sample_rate: float, fused: bool, rounds: int
) -> None:
    _compare(4, 2, _MARGINS[0], sample_rate, fused, rounds)


def _compare(
    world_size: int, group_size: int, margin: Margin, sample_rate: float = 1.0, fused: bool = True, rounds: int = 1
) -> None:
    classes = 23  # does not divide by two
    options = (sample_rate, fused, rounds)
    # In rounds, a rank's own ones follow each other; so one process takes all of them in one.
    losses, gradient, centers, momentum, _, state = _train(classes, margin, 0, sample_rate, fused, 1)
    answers = run_ranks(_train, world_size, classes, margin, group_size, *options)
    for rank_losses, _, rank_centers, rank_momentum, first, rank_state in answers:
        for one, other in zip(rank_losses, losses):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
        rows = slice(first, first + len(rank_centers))
        torch.testing.assert_close(rank_centers, centers[rows], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(rank_momentum, momentum[rows], rtol=1e-10, atol=1e-12)
        for key, tensor in state.items():
            torch.testing.assert_close(rank_state[key], tensor, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([answer[1] for answer in answers]), gradient, rtol=1e-10, atol=1e-12)
    for group in range(1, world_size // group_size):  # bit for bit, or groups would drift apart
        for place in range(group_size):
            assert torch.equal(answers[place][2], answers[group * group_size + place][2])


def _refusal(group_size: int, losses: bool) -> str:
    config = LossesConfig(intra=IntraLossConfig(weight=0.1))
    auxiliary = config.build(DIM, 5, torch.device("cpu")) if losses else None
    with pytest.raises(ConfigError) as refused:
        PartialFC(DIM, 5, group_size=group_size, auxiliary=auxiliary)
    return str(refused.value)


def test_what_groups_cannot_do_is_said() -> None:
    assert run_ranks(_refusal, 3, 2, False)[0].startswith("head.group_size: 2: must divide the number of ranks, 3")
    assert "losses.intra: looks at the embeddings of all ranks" in run_ranks(_refusal, 2, 1, True)[0]


def test_a_run_in_groups_goes_on_with_other_groups_and_learns_what_one_group_does(tmp_path: Path, faces: Path) -> None:
    def config(name: str, group_size: int) -> TrainConfig:
        return small_config(tmp_path / name, faces / "train.rec", {"head": {"group_size": group_size}})

    flat = run_ranks(losses_of_run, 2, config("flat", 0))[0]
    assert run_ranks(losses_of_run, 2, config("groups", 1))[0] == pytest.approx(flat, rel=1e-4)
    run_ranks(stop_after_four_steps, 2, config("cut", 1))
    assert run_ranks(losses_of_run, 2, config("cut", 0))[0] == pytest.approx(flat[4:], rel=1e-4)
    run_ranks(stop_after_four_steps, 2, config("other", 0))
    assert run_ranks(losses_of_run, 2, config("other", 1))[0] == pytest.approx(flat[4:], rel=1e-4)
    expected = weights(tmp_path / "flat")
    for name in ("groups", "cut", "other"):
        assert float((weights(tmp_path / name) - expected).norm() / expected.norm()) < 1e-4
