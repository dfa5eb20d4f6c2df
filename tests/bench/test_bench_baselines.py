"""The baselines compute what they are said to; so a comparison with them is fair."""

from collections.abc import Callable

import pytest
import torch
from support import run_ranks
from torch import Tensor, nn

from arcdist.bench.baselines import LinearCrossEntropy, Materialized, PartialFCV2
from arcdist.heads.partial_fc import PartialFC
from arcdist.margins import Combined
from arcdist.runtime import collectives

B, C, D = 12, 61, 16
SCALE = 16.0  # PartialFC_V2 takes no probability below 1e-30, which a scale of 64 would reach here


def _three_steps(head: nn.Module, initial: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of three steps of SGD from ``initial``, and the centers after them."""
    centers = head.centers
    assert isinstance(centers, nn.Parameter)
    with torch.no_grad():
        centers.copy_(initial)
    rank, mine = collectives.rank(), B // collectives.world_size()
    sgd = torch.optim.SGD([centers], 0.5, momentum=0.9, weight_decay=5e-4)
    draws = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(3):
        embeddings = torch.randn(B, D, generator=draws, dtype=torch.float64).to(centers.dtype)
        labels = torch.randint(C, (B,), generator=draws)
        loss = head(*(rows[rank * mine : (rank + 1) * mine] for rows in (embeddings.requires_grad_(), labels)))
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses), centers.detach()


def _initial() -> Tensor:
    return torch.randn(C, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("baseline", [PartialFCV2, Materialized])
def test_a_baseline_takes_the_steps_of_our_head_with_its_gradient(
    baseline: type[nn.Module], dtype: torch.dtype, tolerance: float
) -> None:
    ours = PartialFC(D, C, Combined(SCALE, gradient="straight_through"), dtype=dtype)
    expected_losses, expected_centers = _three_steps(ours, _initial())
    losses, centers = _three_steps(baseline(D, C, scale=SCALE, dtype=dtype), _initial())
    torch.testing.assert_close(losses, expected_losses, rtol=tolerance, atol=0)
    torch.testing.assert_close(centers, expected_centers, rtol=0, atol=tolerance)
    assert (centers - _initial().to(dtype)).abs().max() > 0.01


def _three_steps_of_a_rank() -> tuple[Tensor, Tensor]:
    head = PartialFCV2(D, C, scale=SCALE, dtype=torch.float64)
    return _three_steps(head, _initial()[head.classes.start : head.classes.stop])


def test_partial_fc_v2_takes_the_same_steps_on_two_ranks() -> None:
    expected_losses, expected_centers = _three_steps_of_a_rank()
    (losses, first), (_, second) = run_ranks(_three_steps_of_a_rank, 2)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(torch.cat([first, second]), expected_centers)


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyOptions"), reason="torch has it from 2.13 on")
@pytest.mark.parametrize("chunk", [None, 5])
def test_linear_cross_entropy_takes_the_steps_of_the_softmax_without_a_margin(chunk: int | None) -> None:
    expected_losses, expected_centers = _three_steps(Materialized(D, C, m2=0), _initial())
    losses, centers = _three_steps(LinearCrossEntropy(D, C, chunk), _initial())
    torch.testing.assert_close(losses, expected_losses, rtol=2e-5, atol=0)
    torch.testing.assert_close(centers, expected_centers, rtol=0, atol=2e-5)


def _batch() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(5)
    return torch.randn(B, D, generator=draws), torch.randint(C, (B,), generator=draws)


def test_sampling_keeps_the_batchs_own_centers_and_draws_the_rest() -> None:
    _, labels = _batch()
    head = PartialFCV2(D, C, sample_rate=0.5)
    drawn = head._drawn(labels)
    assert len(drawn) == C // 2
    assert set(labels.tolist()) <= set(drawn.tolist())
    assert len(PartialFCV2(D, C, sample_rate=0.01)._drawn(labels)) == len(labels.unique())


def test_a_sampled_step_is_a_step_over_the_drawn_centers(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = _batch()
    head = PartialFCV2(D, C, sample_rate=0.5, scale=SCALE)
    drawn = head._drawn(labels)
    monkeypatch.setattr(head, "_drawn", lambda _: drawn)
    small = Materialized(D, len(drawn), SCALE)
    with torch.no_grad():
        small.centers.copy_(head.centers[drawn])
    loss, expected = head(embeddings, labels), small(embeddings, torch.searchsorted(drawn, labels))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert head.centers.grad is not None
    torch.testing.assert_close(head.centers.grad[drawn], small.centers.grad, rtol=1e-3, atol=1e-5)
    assert int(head.centers.grad.abs().sum(1).gt(0).sum()) == len(drawn)


def test_autocast_rounds_the_cosines_but_not_the_loss() -> None:
    embeddings, labels = _batch()
    exact, rounded = PartialFCV2(D, C, scale=SCALE), PartialFCV2(D, C, autocast=True, scale=SCALE)
    rounded.load_state_dict(exact.state_dict())
    loss, other = exact(embeddings, labels).detach(), rounded(embeddings, labels).detach()
    assert other.dtype == torch.float32
    assert 0 < abs(float(loss - other)) < 0.02 * float(loss)


@pytest.mark.parametrize("make", [PartialFCV2, Materialized], ids=lambda make: make.__name__)
def test_a_cosine_of_one_gives_finite_gradients(make: Callable[[int, int], nn.Module]) -> None:
    head = make(D, C)
    centers = head.centers
    assert isinstance(centers, nn.Parameter)
    embeddings, labels = (3 * centers.detach()[:B]).requires_grad_(), torch.arange(B)
    head(embeddings, labels).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert centers.grad is not None
    assert centers.grad.isfinite().all()
