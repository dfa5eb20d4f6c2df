"""The blockwise log-sum-exp means what the reference says."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.ops.margin_logsumexp import margin_logsumexp
from arcdist.ops.margin_logsumexp.reference import margin_logsumexp as reference


def _problem(rows: int, classes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + classes)
    embedding = F.normalize(torch.randn(rows, 16, generator=generator, dtype=torch.float64)).to(dtype)
    centers = F.normalize(torch.randn(classes, 16, generator=generator, dtype=torch.float64)).to(dtype)
    target = torch.randint(-1, max(classes, 1), (rows,), generator=generator).clamp_max(classes - 1)
    target_logit = 20 * torch.rand(rows, generator=generator, dtype=torch.float64).to(dtype)
    return embedding.requires_grad_(), centers.requires_grad_(), target, target_logit.requires_grad_()


def _with_gradients(function, problem, *arguments) -> list[Tensor]:
    lse = function(*problem, 30.0, *arguments)
    weights = torch.linspace(0.5, 2, len(lse), dtype=lse.dtype)
    inputs = [tensor for tensor in problem if tensor.requires_grad]
    return [lse, *torch.autograd.grad((lse * weights).sum(), inputs)]


@pytest.mark.parametrize(("rows", "classes", "block"), [(5, 7, 3), (1, 1, 1), (13, 101, 10), (8, 64, 64), (4, 9, 100)])
def test_value_and_gradients_are_the_references_in_float64(rows: int, classes: int, block: int) -> None:
    problem = _problem(rows, classes)
    for ours, plain in zip(_with_gradients(margin_logsumexp, problem, block), _with_gradients(reference, problem)):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)


def test_autograd_agrees_with_finite_differences() -> None:
    embedding, centers, target, target_logit = _problem(4, 9)
    torch.autograd.gradcheck(
        lambda e, c, t: margin_logsumexp(e, c, target, t, 30.0, 4), (embedding, centers, target_logit)
    )


def test_no_centers_give_minus_infinity_and_zero_gradients() -> None:
    embedding, centers, _, target_logit = _problem(3, 0)
    lse = margin_logsumexp(embedding, centers, torch.full((3,), -1), target_logit, 30.0)
    assert torch.equal(lse, torch.full((3,), -torch.inf, dtype=torch.float64))
    gradients = torch.autograd.grad(lse.exp().sum(), (embedding, centers, target_logit))
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_err_no_more_than_the_reference_in_that_dtype(dtype: torch.dtype) -> None:
    exact = _with_gradients(reference, _problem(32, 300))
    ours = _with_gradients(margin_logsumexp, _problem(32, 300, dtype), 64)
    plain = _with_gradients(reference, _problem(32, 300, dtype))
    for mine, theirs, truth in zip(ours, plain, exact):
        assert (mine - truth).norm() <= 1.5 * (theirs - truth).norm() + 1e-7 * truth.norm()


def test_scale_128_and_cosines_of_one_stay_finite() -> None:
    embedding = torch.eye(4, requires_grad=True)
    centers = torch.cat([torch.eye(4), -torch.eye(4)]).requires_grad_()
    target_logit = torch.full((4,), -128.0, requires_grad=True)
    lse = margin_logsumexp(embedding, centers, torch.arange(4), target_logit, 128.0)
    gradients = torch.autograd.grad(lse.sum(), (embedding, centers, target_logit))
    assert all(tensor.isfinite().all() for tensor in (lse, *gradients))
