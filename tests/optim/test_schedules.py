"""Schedules at the points that define them."""

from math import inf, nan

import pytest

from arcdist.errors import ConfigError
from arcdist.optim import ScheduleConfig


def test_polynomial_falls_from_one_to_zero_by_its_power() -> None:
    schedule = ScheduleConfig("polynomial", power=2).build(100, 10)
    assert [schedule(0), schedule(50), schedule(100)] == [1, 0.25, 0]


def test_cosine_ends_at_its_final_share() -> None:
    schedule = ScheduleConfig("cosine", final=0.1).build(100, 10)
    assert schedule(0) == 1
    assert schedule(50) == pytest.approx(0.55)
    assert schedule(100) == pytest.approx(0.1)


def test_step_drops_at_its_milestones_in_epochs() -> None:
    schedule = ScheduleConfig("step", milestones=[2, 3.5], gamma=0.1).build(100, 10)
    assert [schedule(step) for step in (19, 20, 34, 35)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_step_drops_at_its_milestones_in_steps_whatever_an_epoch_is() -> None:
    schedule = ScheduleConfig("step", milestones_steps=[20, 35], gamma=0.1).build(100, 7)
    assert [schedule(step) for step in (19, 20, 34, 35)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warmup_rises_straight_and_never_starts_at_zero() -> None:
    schedule = ScheduleConfig("constant", warmup_epochs=0.4).build(100, 10)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_warmup_in_steps_and_in_epochs_the_longer_counts() -> None:
    assert ScheduleConfig("cosine", warmup_epochs=0.4, warmup_steps=7).build(100, 10).warmup_steps == 7


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"name": "exponential"}, "name"),
        ({"power": 0}, "power"),
        ({"final": 2}, "final"),
        ({"name": "step"}, "milestones"),
        ({"milestones": [3, 2]}, "milestones"),
        ({"milestones_steps": [3, 2]}, "milestones_steps"),
        ({"milestones": [1], "milestones_steps": [9]}, "milestones and milestones_steps"),
        ({"milestones": [1, inf]}, "milestones"),
        ({"milestones": [nan]}, "milestones"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"warmup_epochs": nan}, "warmup_epochs"),
        ({"power": inf}, "power"),
        ({"final": nan}, "final"),
        ({"gamma": 0}, "gamma"),
        ({"gamma": nan}, "gamma"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(values: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"optim.schedule.{key}"):
        ScheduleConfig(**values).validate()
