"""Updates of blocks of centers against torch's optimizers on whole gradients, in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from arcdist.errors import ConfigError
from arcdist.optim import OptimConfig, ScheduleConfig
from arcdist.optim.center_updates import CenterUpdate
from arcdist.optim.optimizers import set_learning_rate

CLASSES, DIM = 40, 6
SCHEDULE = ScheduleConfig("polynomial", warmup_steps=10)
SGD = {
    "plain": OptimConfig(lr=0.1, weight_decay=0.02, centers_lr=2.0, schedule=SCHEDULE),
    "nesterov": OptimConfig(lr=0.1, weight_decay=0.02, nesterov=True, schedule=SCHEDULE),
    "without momentum": OptimConfig(lr=0.1, weight_decay=0.02, momentum=0.0, schedule=SCHEDULE),
}
ALL = SGD | {"adamw": OptimConfig("adamw", lr=0.01, weight_decay=0.1, schedule=SCHEDULE)}
each_sgd = pytest.mark.parametrize("config", SGD.values(), ids=SGD.keys())
each = pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())


class _Run:
    """Steps on centers with given gradients, by the optimizer itself or block by block."""

    def __init__(self, config: OptimConfig, undrawn: str | None, block: int = 7, classes: int = CLASSES) -> None:
        start = torch.randn(classes, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.centers = nn.Parameter(start)
        self.config, self.block = config, block
        self.optimizer = config.build(nn.Identity(), self.centers)
        self.update = CenterUpdate(self.optimizer, self.centers, undrawn) if undrawn else None

    def step(self, gradient: Tensor, lr: float, rows: Tensor | None = None) -> None:
        """Do one step; ``gradient`` is whole, and zero in rows that are not drawn."""
        set_learning_rate(self.optimizer, lr)
        if self.update is None:
            self.centers.grad = gradient
            self.optimizer.step()
            return
        self.update.begin(rows)
        for part in self._blocks(rows):
            self.update.apply(part, gradient[part])
        self.update.end()
        self.optimizer.step()  # of the backbone: it must leave the centers alone

    def _blocks(self, rows: Tensor | None) -> Iterator[slice | Tensor]:
        if rows is not None:
            yield from rows.split(self.block)
        else:
            yield from (slice(first, first + self.block) for first in range(0, len(self.centers), self.block))

    def begin(self, rows: Tensor) -> None:
        """Begin a step, to be given up or begun again."""
        assert self.update is not None
        self.update.begin(rows)

    def finish(self) -> None:
        """Bring all rows up to date."""
        assert self.update is not None
        self.update.finish()

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that a checkpoint holds of the centers."""
        tensors: dict[str, Any] = {"centers": self.centers.detach(), **self.optimizer.state[self.centers]}
        return {name: tensor.clone() for name, tensor in tensors.items()}


def _steps(count: int, sample_rate: float, config: OptimConfig) -> Iterator[tuple[Tensor, float, Tensor]]:
    """Yield each step's whole gradient, learning rate and drawn rows."""
    generator = torch.Generator().manual_seed(2)
    schedule = config.schedule.build(count, 1)
    for step in range(count):
        drawn = torch.rand(CLASSES, generator=generator) < sample_rate
        gradient = torch.randn(CLASSES, DIM, dtype=torch.float64, generator=generator) * drawn[:, None]
        yield gradient, config.lr * schedule(step), drawn.nonzero().squeeze(1)


def _assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        error = float((tensor - other[name]).norm() / other[name].norm())
        assert error <= tolerance, f"{name}: {error}"


@each
@pytest.mark.parametrize("drawn", ["slices", "indices"])
def test_blocks_are_updated_as_by_the_optimizer(config: OptimConfig, drawn: str) -> None:
    blocks, whole = _Run(config, "frozen"), _Run(config, None)
    for gradient, lr, rows in _steps(50, 1.0, config):
        blocks.step(gradient, lr, rows if drawn == "indices" else None)
        whole.step(gradient, lr)
    _assert_equal(blocks.state(), whole.state(), 1e-13)


@each
def test_the_size_of_the_blocks_does_not_matter(config: OptimConfig) -> None:
    runs = [_Run(config, "frozen", block) for block in (1, 3, CLASSES, 1000)]
    for gradient, lr, rows in _steps(20, 0.6, config):
        for run in runs:
            run.step(gradient, lr, rows)
    for run in runs[1:]:
        _assert_equal(run.state(), runs[0].state(), 1e-15)


@each
def test_frozen_rows_keep_every_bit_and_the_others_learn_as_if_they_were_alone(config: OptimConfig) -> None:
    run, alone = _Run(config, "frozen"), _Run(config, None, classes=CLASSES)
    before = run.state()
    rows = torch.tensor([2, 3, 31])
    undrawn = torch.ones(CLASSES, dtype=torch.bool).index_fill(0, rows, False)
    for gradient, lr, _ in _steps(5, 1.0, config):
        run.step(gradient, lr, rows)
        alone.step(gradient, lr)
    for name, after in run.state().items():
        if after.ndim:
            assert torch.equal(after[undrawn], before[name][undrawn])
            torch.testing.assert_close(after[rows], alone.state()[name][rows], rtol=1e-13, atol=0)


@each_sgd
def test_dense_rows_are_where_zero_gradients_would_have_taken_them_whenever_they_are_scored(
    config: OptimConfig,
) -> None:
    lazy, whole = _Run(config, "dense"), _Run(config, None)
    for gradient, lr, rows in _steps(200, 0.05, config):
        lazy.begin(rows)
        torch.testing.assert_close(lazy.centers[rows], whole.centers[rows], rtol=5e-13, atol=5e-13)
        lazy.step(gradient, lr, rows)
        whole.step(gradient, lr)
    lazy.finish()
    _assert_equal(lazy.state(), whole.state(), 5e-13)


@each_sgd
def test_a_run_that_is_resumed_where_it_was_saved_goes_on_with_the_same_bits(config: OptimConfig) -> None:
    steps = list(_steps(30, 0.2, config))
    run, resumed = _Run(config, "dense"), _Run(config, "dense")
    for index, step in enumerate(steps):
        if index == 17:
            run.finish()
            saved = run.state()
            resumed.centers.data.copy_(saved.pop("centers"))
            for name, tensor in saved.items():
                resumed.optimizer.state[resumed.centers][name].copy_(tensor)
        run.step(*step)
        if index >= 17:
            resumed.step(*step)
    for one in (run, resumed):
        one.finish()
    _assert_equal(resumed.state(), run.state())


@each_sgd
def test_a_step_that_is_given_up_leaves_nothing_behind(config: OptimConfig) -> None:
    run, other = _Run(config, "dense"), _Run(config, "dense")
    for gradient, lr, rows in _steps(20, 0.2, config):
        other.begin((rows + 1) % CLASSES)  # and its gradient overflowed
        for one in (run, other):
            one.step(gradient, lr, rows)
    for one in (run, other):
        one.finish()
    _assert_equal(other.state(), run.state(), 1e-13)


class _Sizes(TorchDispatchMode):
    """Sums the elements of all new tensors that are made within."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        makes_new = isinstance(result, Tensor) and not func.is_view and not func._schema.is_mutable
        self.total += result.numel() if makes_new else 0
        return result


@pytest.mark.parametrize(("config", "undrawn"), [*((c, "dense") for c in SGD.values()), (ALL["adamw"], "frozen")])
def test_a_step_makes_and_writes_drawn_rows_only(config: OptimConfig, undrawn: str) -> None:
    classes, rows = 5000, torch.tensor([5, 77, 4000])
    run = _Run(config, undrawn, classes=classes)
    gradient = torch.ones(classes, DIM, dtype=torch.float64)
    run.step(gradient, 0.1, torch.tensor([1, 5]))
    before = run.state()
    with _Sizes() as made:
        run.step(gradient, 0.1, rows)
    assert made.total <= 12 * (len(rows) * DIM + 8)
    for name, after in run.state().items():
        if after.ndim:
            assert (after != before[name]).any(1).nonzero().squeeze(1).tolist() == rows.tolist()


def test_what_a_step_costs_does_not_depend_on_the_steps_before_finish() -> None:
    made = []
    for steps_before in (0, 50):
        run = _Run(SGD["plain"], "dense")
        for step in _steps(steps_before, 0.2, run.config):
            run.step(*step)
        run.finish()
        with _Sizes() as sizes:
            run.step(torch.ones(CLASSES, DIM, dtype=torch.float64), 0.1, torch.tensor([3, 4]))
        made.append(sizes.total)
    assert made[0] == made[1]


def test_steps_that_draw_all_rows_leave_nothing_to_catch_up() -> None:
    made, states = [], []
    for undrawn in ("frozen", "dense"):
        run = _Run(SGD["plain"], undrawn)
        with _Sizes() as sizes:
            for gradient, lr, _ in _steps(5, 1.0, run.config):
                run.step(gradient, lr)
            run.finish()
        made.append(sizes.total)
        states.append(run.state())
    assert made[0] == made[1]
    _assert_equal(*states)


@each_sgd
def test_steps_may_draw_some_rows_or_all(config: OptimConfig) -> None:
    lazy, whole = _Run(config, "dense"), _Run(config, None)
    for index, (gradient, lr, rows) in enumerate(_steps(30, 0.2, config)):
        everything = index % 7 == 3
        drawn = torch.full_like(gradient, 0.1) if everything else gradient
        lazy.step(drawn, lr, None if everything else rows)
        whole.step(drawn, lr)
    lazy.finish()
    _assert_equal(lazy.state(), whole.state(), 1e-13)


def test_a_step_without_drawn_rows_is_a_step() -> None:
    for config in ALL.values():
        run = _Run(config, "frozen")
        before = run.state()
        run.step(torch.zeros(CLASSES, DIM, dtype=torch.float64), 0.1, torch.arange(0))
        assert torch.equal(run.state()["centers"], before["centers"])


def test_dense_rows_under_adamw_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"optim.undrawn: 'dense': needs optim.name=sgd.*no closed form"):
        _Run(ALL["adamw"], "dense")


def test_an_unknown_choice_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"optim.undrawn: 'lazy': must be one of frozen, dense"):
        _Run(SGD["plain"], "lazy")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_centers_in_bf16_follow_the_float32_ones_on_average_and_do_not_depend_on_how_rows_are_shared(name: str) -> None:
    config = OptimConfig(name, lr=1e-3, weight_decay=0.01)
    start = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))

    def trained(dtype: torch.dtype, shards: list[slice]) -> Tensor:
        parts = []
        for rows in shards:
            centers = nn.Parameter(start[rows].to(dtype, copy=True))
            update = config.center_update(config.build(nn.Identity(), centers), centers, rows.start, seed=3)
            for step in range(100):
                gradient = torch.randn(64, 32, generator=torch.Generator().manual_seed(step + 1)) + 1
                update.step = step
                update.begin(None)
                update.apply(slice(0, len(centers)), gradient[rows].clone())
                update.end()
            parts.append(centers.detach())
        return torch.cat(parts)

    narrow = trained(torch.bfloat16, [slice(0, 64)])
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(narrow, trained(torch.bfloat16, [slice(0, 20), slice(20, 64)]))
    moved = trained(torch.float32, [slice(0, 64)]) - start
    assert abs(float((narrow.float() - start).mean() / moved.mean()) - 1) < 0.02
