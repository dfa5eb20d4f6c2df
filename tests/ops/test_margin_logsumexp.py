"""The blockwise log-sum-exp means what the reference says."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.errors import ConfigError
from arcdist.ops.margin_logsumexp import CentersGradient, Formula, Tuning, margin_logsumexp
from arcdist.ops.margin_logsumexp.reference import margin_logsumexp as reference

PLAIN = Formula(scale=30.0)


class Hardened:
    """A negative that is not linear, and whose large cosines leave the denominator."""

    def logit(self, cosine: Tensor) -> Tensor:
        return torch.where(cosine > 0.6, -torch.inf, 10 * cosine * (cosine + 1))

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.where(cosine > 0.6, 0, 20 * cosine + 10)


FORMULAS = {
    "plain": PLAIN,
    "subcenters": replace(PLAIN, subcenters=3),
    "negative": replace(PLAIN, negative=Hardened()),
    "both": replace(PLAIN, negative=Hardened(), subcenters=2),
    "as they are": replace(PLAIN, scale=1.0, normalized=False),
}


def _problem(rows: int, classes: int, dtype: torch.dtype = torch.float64, each: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 1000 + classes)
    embedding = F.normalize(torch.randn(rows, 16, generator=generator, dtype=torch.float64)).to(dtype)
    centers = 3 * torch.randn(classes * each, 16, generator=generator, dtype=torch.float64).to(dtype)
    target = torch.randint(-1, max(classes, 1), (rows,), generator=generator).clamp_max(classes - 1)
    return embedding.requires_grad_(), centers.requires_grad_(), target


def _with_gradients(function: Callable, problem: tuple[Tensor, ...], *arguments: object) -> list[Tensor]:
    embedding, centers, target = problem
    lse, cosine = function(embedding, centers, target, *arguments)
    weights = torch.linspace(0.5, 2, len(lse), dtype=lse.dtype)
    loss = (lse * weights).sum() + (cosine * weights.flip(0) ** 2).sum()
    return [lse.detach(), cosine.detach(), *torch.autograd.grad(loss, (embedding, centers))]


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
@pytest.mark.parametrize("kept_mib", [0, 0.002, 100])
@pytest.mark.parametrize(("rows", "classes", "block"), [(5, 7, 3), (13, 101, 10), (8, 64, 64), (4, 9, 100)])
def test_value_and_gradients_are_the_references_whatever_the_block_and_what_is_kept(
    rows: int, classes: int, block: int, kept_mib: float, formula: Formula
) -> None:
    problem = _problem(rows, classes, each=formula.subcenters)
    tuning = Tuning(block=block, kept_mib=kept_mib)
    ours = _with_gradients(margin_logsumexp, problem, formula, tuning)
    for mine, plain in zip(ours, _with_gradients(reference, problem, formula)):
        torch.testing.assert_close(mine, plain, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_autograd_agrees_with_finite_differences(formula: Formula) -> None:
    embedding, centers, target = _problem(4, 9, each=formula.subcenters)
    tuning = Tuning(block=4)
    torch.autograd.gradcheck(lambda e, c: margin_logsumexp(e, c, target, formula, tuning), (embedding, centers))


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_rows_that_take_part_give_what_they_would_alone_and_the_others_get_no_gradient(formula: Formula) -> None:
    embedding, centers, _ = _problem(6, 30, each=formula.subcenters)
    classes = torch.tensor([0, 3, 4, 11, 12, 13, 29])
    rows = (classes[:, None] * formula.subcenters + torch.arange(formula.subcenters)).flatten()
    target = torch.tensor([0, 6, -1, 3, 3, 2])
    tuning = Tuning(block=2)
    ours = _with_gradients(margin_logsumexp, (embedding, centers, target), formula, tuning, rows)
    alone = centers.detach()[rows].requires_grad_()
    *plain, gradient = _with_gradients(reference, (embedding, alone, target), formula)
    expected = torch.zeros_like(centers).index_copy(0, rows, gradient)
    for mine, theirs in zip(ours, [*plain, expected]):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_a_deferred_gradient_adds_up_over_rounds_and_leaves_none_of_full_size() -> None:
    embedding, centers, target = _problem(12, 50)
    whole = _with_gradients(margin_logsumexp, (embedding, centers, target), PLAIN)[3]
    weights = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    deferred = CentersGradient()
    for part in (slice(0, 5), slice(5, 12)):
        lse, cosine = margin_logsumexp(
            embedding[part], centers, target[part], PLAIN, Tuning(block=8), deferred=deferred
        )
        ((lse * weights[part]).sum() + (cosine * weights.flip(0)[part] ** 2).sum()).backward()
    assert centers.grad is None
    gradient = torch.full_like(centers, torch.nan)
    for rows, block in deferred.blocks():
        assert len(block) <= 8
        gradient[rows] = block
    torch.testing.assert_close(gradient, whole, rtol=1e-11, atol=1e-12)
    assert not len(deferred)


def test_no_centers_and_no_negatives_give_minus_infinity_and_zero_gradients() -> None:
    for classes in (0, 1):
        embedding, centers, _ = _problem(3, classes)
        lse, cosine = margin_logsumexp(embedding, centers, torch.full((3,), classes - 1), PLAIN)
        assert torch.equal(lse, torch.full((3,), -torch.inf, dtype=torch.float64))
        gradients = torch.autograd.grad(lse.exp().sum() + 0 * cosine.sum(), (embedding, centers))
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_where_no_row_takes_part_all_is_as_without_centers() -> None:
    embedding, centers, _ = _problem(3, 5)
    nowhere, rows = torch.full((3,), -1), torch.empty(0, dtype=torch.int64)
    lse, cosine, *gradients = _with_gradients(margin_logsumexp, (embedding, centers, nowhere), PLAIN, Tuning(), rows)
    assert torch.equal(lse, torch.full((3,), -torch.inf, dtype=torch.float64))
    assert not any(tensor.any() for tensor in (cosine, *gradients))


def test_float32_errs_no_more_than_the_reference_does() -> None:
    exact = _with_gradients(reference, _problem(32, 300), PLAIN)
    ours = _with_gradients(margin_logsumexp, _problem(32, 300, torch.float32), PLAIN, Tuning(block=64))
    plain = _with_gradients(reference, _problem(32, 300, torch.float32), PLAIN)
    for mine, theirs, truth in zip(ours, plain, exact):
        assert (mine - truth).norm() <= 1.5 * (theirs - truth).norm() + 1e-7 * truth.norm()


def test_products_in_bf16_err_by_bf16_but_not_the_cosine_to_the_own_center() -> None:
    exact = _with_gradients(reference, _problem(32, 300), PLAIN)
    ours = _with_gradients(margin_logsumexp, _problem(32, 300, torch.float32), PLAIN, Tuning(block=64, products="bf16"))
    relative = [float((mine - truth).norm() / truth.norm()) for mine, truth in zip(ours, exact)]
    assert relative[1] < 1e-6
    assert 1e-5 < max(relative) < 2e-2


def test_what_is_kept_in_bf16_changes_only_the_centers_gradient_and_only_by_its_rounding() -> None:
    problem = _problem(32, 300, torch.float32)
    whole = _with_gradients(margin_logsumexp, problem, PLAIN, Tuning(block=64))
    narrow = _with_gradients(margin_logsumexp, problem, PLAIN, Tuning(block=64, kept_dtype=torch.bfloat16))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(narrow[:3], whole[:3]))
    error = float((narrow[3] - whole[3]).norm() / whole[3].norm())
    assert 1e-5 < error < 2e-3


def test_triton_is_refused_on_a_cpu() -> None:
    embedding, centers, target = _problem(3, 5, torch.float32)
    with pytest.raises(ConfigError, match=r"head\.implementation: 'triton': .*; take auto or blockwise"):
        margin_logsumexp(embedding, centers, target, PLAIN, Tuning("triton"))


@pytest.mark.parametrize("scale", [64.0, 128.0])
def test_cosines_of_plus_and_minus_one_stay_finite(scale: float) -> None:
    embedding = torch.cat([torch.eye(4), torch.zeros(1, 4)]).requires_grad_()
    for centers in (torch.cat([torch.eye(4), -torch.eye(4)]), -torch.ones(9, 1) * torch.eye(4)[0], torch.zeros(3, 4)):
        centers.requires_grad_()
        answers = _with_gradients(margin_logsumexp, (embedding, centers, torch.tensor([0, 1, 2, 0, 1])), Formula(scale))
        assert all(tensor.isfinite().all() for tensor in answers)


def test_a_graph_that_is_retained_gives_its_gradients_again() -> None:
    embedding, centers, target = _problem(3, 5)
    lse, _ = margin_logsumexp(embedding, centers, target, PLAIN)
    first = torch.autograd.grad(lse.sum(), (embedding, centers), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(lse.sum(), (embedding, centers))))
