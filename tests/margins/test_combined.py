"""The combined margin against its plain definition."""

import math

import pytest
import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.margins import Combined, CombinedConfig

CASES = {
    "ArcFace": (1.0, 0.5, 0.0),
    "CosFace": (1.0, 0.0, 0.35),
    "SphereFace": (1.35, 0.0, 0.0),
    "normalized softmax": (1.0, 0.0, 0.0),
    "CM1": (1.0, 0.3, 0.2),
    "CM2": (0.9, 0.4, 0.15),
}
case = pytest.mark.parametrize(("m1", "m2", "m3"), CASES.values(), ids=CASES.keys())


def _inside(m1: float, m2: float) -> Tensor:
    """Return cosines whose widened angle stays below π, float64."""
    return torch.linspace(0.01, min((math.pi - m2) / m1, math.pi) - 0.01, 101, dtype=torch.float64).cos()


@case
def test_logit_is_the_papers_formula_below_pi(m1: float, m2: float, m3: float) -> None:
    cosine = _inside(m1, m2)
    plain = 64 * ((m1 * cosine.arccos() + m2).cos() - m3)
    torch.testing.assert_close(Combined(64, m1, m2, m3).target_logit(cosine, cosine), plain, rtol=1e-12, atol=1e-12)


@case
def test_exact_gradient_agrees_with_finite_differences(m1: float, m2: float, m3: float) -> None:
    cosine = _inside(m1, m2).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: Combined(64, m1, m2, m3).target_logit(c, c), cosine)


@case
def test_logit_falls_with_the_angle_up_to_pi(m1: float, m2: float, m3: float) -> None:
    cosine = torch.linspace(0, math.pi, 2001, dtype=torch.float64).cos()
    steps = Combined(64, m1, m2, m3).target_logit(cosine, cosine).diff()
    assert (steps < 0).all()
    assert steps.min() > -64 * 2e-3 * m1  # and without a jump


@case
def test_straight_through_gradient_is_the_scale_and_its_value_arcface_torchs(m1: float, m2: float, m3: float) -> None:
    cosine = torch.linspace(-0.99, 0.99, 51, dtype=torch.float64).requires_grad_()
    logit = Combined(64, m1, m2, m3, gradient="straight_through").target_logit(cosine, cosine)
    torch.testing.assert_close(logit.detach(), 64 * ((m1 * cosine.detach().arccos() + m2).cos() - m3))
    (gradient,) = torch.autograd.grad(logit.sum(), cosine)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 64))


@case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosines_of_exactly_one_and_beyond_give_finite_gradients(m1, m2, m3, dtype) -> None:
    cosine = torch.tensor([-1.0000001, -1, 0, 1, 1.0000001], dtype=dtype, requires_grad=True)
    logit = Combined(128, m1, m2, m3).target_logit(cosine, cosine)
    (gradient,) = torch.autograd.grad(logit.sum(), cosine)
    assert logit.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"scale": 0}, "scale"),
        ({"m1": -1}, "m1"),
        ({"m2": 28.6}, "m2"),
        ({"m3": math.nan}, "m3"),
        ({"gradient": "x"}, "gradient"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(values: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"margin.{key}"):
        Combined(**values)


def test_a_margin_of_strength_zero_is_none_and_of_one_the_whole() -> None:
    cosine = _inside(1.2, 0.5)
    margin = Combined(64, 1.2, 0.5, 0.1)
    whole = margin.target_logit(cosine, cosine)
    margin.strength = 0.0
    torch.testing.assert_close(margin.target_logit(cosine, cosine), 64 * cosine)
    margin.strength = 1.0
    assert torch.equal(margin.target_logit(cosine, cosine), whole)


def test_a_warm_up_raises_the_strength_straight_over_its_share_of_the_run() -> None:
    config = CombinedConfig(warmup=0.5)
    assert [config.strength(step, 100) for step in (0, 25, 50, 99)] == [0, 0.5, 1, 1]
    assert CombinedConfig().strength(0, 100) == 1
