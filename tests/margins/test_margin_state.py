"""The state of stateful margins over three steps, against the recursions of their papers."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arcdist.margins import AdaCos, AdaFace, ASoftmax, Combined, CurricularFace, ElasticFace, InterclassFilter, Margin

STATEFUL: dict[str, Callable[[], Margin]] = {
    "adaface": AdaFace,
    "curricularface": CurricularFace,
    "adacos": lambda: AdaCos(1000),
    "filtered": lambda: InterclassFilter(CurricularFace(), 0.4),
}


def _steps() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (cosine, norm, negatives) of three global batches of 8 rows."""
    generator = torch.Generator().manual_seed(2)
    draw = [torch.rand(3, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    return list(zip(draw[0] - 0.2, 10 + 200 * draw[1] ** 4, 4 + 4 * draw[2]))


def _states(margin: Margin, rounds: list[slice]) -> list[dict[str, Tensor]]:
    states = []
    for step in _steps():
        for rows in rounds:
            margin.observe(*(values[rows] for values in step))
        margin.end_step()
        states.append({name: buffer.clone() for name, buffer in margin.named_buffers()})
    return states


def test_adaface_follows_the_running_mean_and_std_of_the_norms() -> None:
    mean, std = 20.0, 100.0
    for (_, norm, _), state in zip(_steps(), _states(AdaFace(), [slice(0, 8)])):
        safe = norm.clip(0.001, 100)
        mean, std = 0.01 * safe.mean() + 0.99 * mean, 0.01 * safe.std() + 0.99 * std
        torch.testing.assert_close(state["mean"], mean)
        torch.testing.assert_close(state["std"], std)


@pytest.mark.parametrize(
    ("theta", "norm", "logit"),
    [(0.1, 100.0, math.cos(0) - 0.4 - 0.4), (math.pi - 0.1, 1e-3, math.cos(math.pi) - 0.4 + 0.4)],
    ids=["below 0", "beyond pi"],
)
def test_adaface_holds_the_widened_angle_between_0_and_pi(theta: float, norm: float, logit: float) -> None:
    margin = AdaFace(scale=1.0, m=0.4)
    margin.std.fill_(0.1)  # so that the one norm is of the best images, the other of the worst
    cosine = torch.tensor([math.cos(theta)], dtype=torch.float64)
    assert float(margin.target_logit(cosine, torch.tensor([norm], dtype=torch.float64))) == pytest.approx(logit)


def test_curricularface_follows_the_running_mean_of_the_targets_cosines() -> None:
    t = 0.0
    for (cosine, _, _), state in zip(_steps(), _states(CurricularFace(), [slice(0, 8)])):
        t = 0.01 * cosine.mean() + 0.99 * t
        torch.testing.assert_close(state["t"], t)


def test_adacos_starts_at_its_fixed_scale_and_follows_the_median_angle() -> None:
    margin = AdaCos(1000)
    assert margin.scale == pytest.approx(math.sqrt(2) * math.log(999))
    for (cosine, _, negatives), state in zip(_steps(), _states(margin, [slice(0, 8)])):
        theta_med = cosine.acos().sort(descending=True).values[3]  # of 8, the lower cosine of the middle two
        b_avg = negatives.exp().sum() / 8
        torch.testing.assert_close(state["current"], b_avg.log() / theta_med.clamp_max(math.pi / 4).cos())


def test_a_filtered_margin_draws_for_the_rows_that_a_head_names() -> None:
    bare, filtered = ElasticFace(seed=3), InterclassFilter(ElasticFace(seed=3), 0.5)
    bare.rows = filtered.rows = torch.tensor([5, 2, 7, 0, 1, 3, 4, 6])
    cosine, norm, negatives = _steps()[0]
    assert torch.equal(filtered.losses(cosine, norm, negatives), bare.losses(cosine, norm, negatives))


def test_a_filter_wants_the_targets_first_where_the_margin_in_it_does() -> None:
    assert InterclassFilter(CurricularFace(), 0.4).needs_target_first
    assert not InterclassFilter(Combined(), 0.4).needs_target_first


def test_adacos_keeps_a_scale_of_1_where_negatives_would_leave_none() -> None:
    margin = AdaCos(3)
    margin.observe(torch.tensor([0.9, 0.8]), torch.ones(2), torch.tensor([-2.0, -3.0]))
    margin.end_step()
    assert margin.scale == 1.0


def test_adacos_that_is_fixed_stays() -> None:
    assert [state["current"].item() for state in _states(AdaCos(1000, dynamic=False), [slice(0, 8)])] == [
        pytest.approx(math.sqrt(2) * math.log(999))
    ] * 3


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize(
    "rounds",
    [[slice(0, 4), slice(4, 8)], [slice(4, 8), slice(0, 4)], [slice(0, 1), slice(1, 7), slice(7, 8)]],
    ids=["halves", "halves in the other order", "uneven"],
)
def test_the_state_does_not_depend_on_the_rounds_of_a_step(name: str, rounds: list[slice]) -> None:
    for whole, parts in zip(_states(STATEFUL[name](), [slice(0, 8)]), _states(STATEFUL[name](), rounds)):
        for key, value in whole.items():
            torch.testing.assert_close(parts[key], value, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", STATEFUL)
def test_the_state_of_a_step_does_not_move_before_its_end(name: str) -> None:
    margin = STATEFUL[name]()
    before = {key: value.clone() for key, value in margin.named_buffers()}
    margin.observe(*_steps()[0])
    assert dict(margin.named_buffers()) == before


@pytest.mark.parametrize("name", STATEFUL)
def test_a_step_without_rows_leaves_the_state(name: str) -> None:
    margin = STATEFUL[name]()
    before = {key: value.clone() for key, value in margin.named_buffers()}
    margin.end_step()
    assert dict(margin.named_buffers()) == before


def test_adaface_takes_a_step_of_one_row_without_a_spread_from_it() -> None:
    margin = AdaFace()
    margin.observe(torch.tensor([0.5]), torch.tensor([30.0]), torch.tensor([3.0]))
    margin.end_step()
    assert float(margin.mean) == pytest.approx(20.1)
    assert float(margin.std) == 100


def test_the_blend_of_a_softmax_falls_with_the_steps_to_its_least() -> None:
    margin, cosine = ASoftmax(), torch.tensor([0.5], dtype=torch.float64)
    share = []
    for _ in range(3):
        target = float(margin.target_logit(cosine, torch.ones_like(cosine)))
        share.append((0.5 - target) / (0.5 - (-math.cos(4 * math.pi / 3) - 2)))  # θ = π/3: ψ(4θ) has k = 1
        margin.end_step()
    assert share == pytest.approx([1 / (1 + 1000 / (1 + 0.12 * step)) for step in (1, 2, 3)])
    margin.step.fill_(10**6)
    assert float(margin.target_logit(cosine, torch.ones_like(cosine))) == pytest.approx(0.5 + (-1.5 - 0.5) / 6)


def test_elastic_margins_have_their_mean_and_spread_and_are_new_in_each_step() -> None:
    margin, cosine = ElasticFace(1.0, "cos", 0.35, 0.05), torch.zeros(4000, dtype=torch.float64)
    first = -margin.target_logit(cosine, cosine)
    assert float(first.mean()) == pytest.approx(0.35, abs=5 * 0.05 / 4000**0.5)
    assert float(first.std()) == pytest.approx(0.05, rel=0.06)
    assert torch.equal(-margin.target_logit(cosine, cosine), first)
    margin.end_step()
    assert abs(torch.corrcoef(torch.stack([first, -margin.target_logit(cosine, cosine)]))[0, 1]) < 0.08


def test_elastic_margins_do_not_depend_on_torchs_generator_but_on_the_seed() -> None:
    cosine = torch.zeros(5)
    torch.manual_seed(1)
    one = ElasticFace(seed=3).target_logit(cosine, cosine)
    torch.manual_seed(2)
    assert torch.equal(ElasticFace(seed=3).target_logit(cosine, cosine), one)
    assert not torch.equal(ElasticFace(seed=4).target_logit(cosine, cosine), one)


@pytest.mark.parametrize("named", [False, True], ids=["in order", "by their places"])
def test_a_row_has_the_same_elastic_margin_in_any_round(named: bool) -> None:
    cosine = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
    whole = ElasticFace().target_logit(cosine, cosine)
    margin, parts = ElasticFace(), torch.empty_like(whole)
    for rows in [torch.arange(4, 8), torch.arange(0, 4)] if named else [torch.arange(0, 4), torch.arange(4, 8)]:
        if named:
            margin.rows = rows
        parts[rows] = margin.target_logit(cosine[rows], cosine[rows])
        margin.observe(cosine[rows], cosine[rows], cosine[rows])
    assert torch.equal(parts, whole)


def test_elastic_plus_gives_the_larger_margin_to_the_row_farther_from_its_center() -> None:
    cosine = torch.tensor([0.3, -0.2, 0.9, 0.5, 0.1], dtype=torch.float64)
    margins = cosine - ElasticFace(1.0, "cos", 0.35, 0.05, plus=True).target_logit(cosine, cosine)
    assert margins[cosine.argsort()].diff().le(0).all()
    plain = cosine - ElasticFace(1.0, "cos", 0.35, 0.05).target_logit(cosine, cosine)
    torch.testing.assert_close(margins.sort().values, plain.sort().values)


def test_a_filter_takes_negatives_above_its_threshold_out_of_the_denominator() -> None:
    negative = InterclassFilter(Combined(64.0), 0.4).negative(torch.tensor([0.9]))
    block = torch.tensor([[0.39, 0.41, -1.0, 1.0]])
    assert negative.logit(block).tolist() == [[pytest.approx(64 * 0.39), -math.inf, -64, -math.inf]]
    assert negative.slope(block).tolist() == [[64, 0, 64, 0]]


def test_a_filter_passes_the_strength_on() -> None:
    inner = Combined()
    filtered = InterclassFilter(inner, 0.4)
    filtered.strength = 0.25
    assert inner.strength == filtered.strength == 0.25
