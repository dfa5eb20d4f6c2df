"""Stochastic rounding is right on average, and a function of key, row and column."""

import torch

from arcdist.optim.stochastic_rounding import round_stochastically


def test_the_mean_of_many_roundings_is_the_value() -> None:
    value = torch.tensor([[1.0 + 2**-10, -3.1415927, 1e-30, 0.0, 123456.789]])
    rows = torch.arange(20_000)
    rounded = round_stochastically(value.expand(20_000, -1), 7, rows).double()
    assert all(len(column.unique()) == (1 if exact == 0 else 2) for column, exact in zip(rounded.T, value[0]))
    gap = torch.finfo(torch.bfloat16).eps * value.abs().double()[0]
    assert ((rounded.mean(0) - value.double()[0]).abs() <= 4 * 0.5 * gap / 20_000**0.5).all()


def test_what_bfloat16_holds_stays_as_it_is() -> None:
    value = torch.randn(50, 8).bfloat16()
    assert torch.equal(round_stochastically(value.float(), 1, torch.arange(50)), value)


def test_draws_go_with_key_row_and_column_and_not_with_their_neighbors() -> None:
    value = torch.full((100, 64), 1.003)
    rows = torch.arange(100)
    whole = round_stochastically(value, 5, rows)
    assert torch.equal(round_stochastically(value[30:40], 5, rows[30:40]), whole[30:40])
    for other in (round_stochastically(value, 6, rows), whole.roll(1, 0), whole.roll(1, 1)):
        assert 0.3 < (other != whole).double().mean() < 0.6


def test_weights_in_bfloat16_follow_small_steps_on_average() -> None:
    weight, rows = torch.ones(64, 64).bfloat16(), torch.arange(64)
    for step in range(200):
        weight = round_stochastically(weight.float() - 1e-4, step, rows)
    assert abs(float(weight.float().mean()) - 0.98) < 1e-3
    assert (torch.ones(1).bfloat16() - 1e-4).bfloat16() == 1  # to the nearest, none of these steps would count
