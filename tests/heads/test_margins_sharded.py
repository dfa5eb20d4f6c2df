"""Every margin on the sharded head, on 1, 2 and 3 ranks, against its published equation on one process."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from published_losses import PUBLISHED, batch, margin_config
from support import run_ranks
from torch import Tensor

from arcdist.heads import PartialFC
from arcdist.margins import MarginConfig
from arcdist.runtime import collectives

DIM, CLASSES, ROWS, STEPS = 8, 12, 30, 3

every_margin = pytest.mark.parametrize("name", PUBLISHED)


@dataclass
class Step:
    """What a step gave: loss, gradients of the embeddings and centers, and the margin's state before it."""

    loss: Tensor
    embeddings: Tensor
    centers: Tensor
    state: dict[str, Tensor]


def _centers(bias: bool) -> Tensor:
    centers = batch(ROWS, CLASSES, DIM)[1]
    return torch.cat([centers, torch.linspace(-1, 1, CLASSES, dtype=torch.float64)[:, None]], 1) if bias else centers


def _sharded(configs: dict[str, MarginConfig], rounds: int) -> dict[str, list[Step]]:
    return {name: _steps(config, rounds) for name, config in configs.items()}


def _steps(config: MarginConfig, rounds: int) -> list[Step]:
    """Return some steps of this rank on the same batch and centers, so that only the margin's state moves."""
    margin = config.build(CLASSES)
    head = PartialFC(DIM, CLASSES, margin, dtype=torch.float64)
    with torch.no_grad():
        head.centers.copy_(_centers(margin.bias)[head.classes.start : head.classes.stop])
    embeddings, _, labels = batch(ROWS, CLASSES, DIM)
    share = ROWS // collectives.world_size()
    mine = slice(collectives.rank() * share, (collectives.rank() + 1) * share)
    rows, labels = embeddings[mine].clone().requires_grad_(), labels[mine]
    steps = []
    for number in range(STEPS):
        state = {key: value.clone() for key, value in margin.named_buffers()}
        head.begin_step(number, labels, rounds)
        loss = torch.zeros((), dtype=torch.float64)
        for part in torch.arange(share).chunk(rounds):
            part_loss = head(rows[part], labels[part]) * len(part) / share
            part_loss.backward()
            loss += part_loss.detach()
        head.end_step()
        assert rows.grad is not None
        assert head.centers.grad is not None
        steps.append(Step(loss, rows.grad / collectives.world_size(), head.centers.grad, state))
        rows.grad = head.centers.grad = None
    return steps


@cache
def _ran(world_size: int, rounds: int = 1) -> list[dict[str, list[Step]]]:
    configs = {name: margin_config(name) for name in PUBLISHED}
    return run_ranks(_sharded, world_size, configs, rounds) if world_size > 1 else [_sharded(configs, rounds)]


@every_margin
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_losses_and_gradients_of_three_steps_are_those_of_the_published_equation(name: str, world_size: int) -> None:
    answers = [answer[name] for answer in _ran(world_size)]
    embeddings, _, labels = batch(ROWS, CLASSES, DIM)
    inputs = embeddings.requires_grad_(), _centers(name == "softmax").requires_grad_()
    for parts in zip(*answers):
        loss = PUBLISHED[name](*inputs, labels, parts[0].state).mean()
        rows, centers = torch.autograd.grad(loss, inputs)
        for part in parts:
            torch.testing.assert_close(part.loss, loss.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.cat([part.embeddings for part in parts]), rows, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.cat([part.centers for part in parts]), centers, rtol=1e-10, atol=1e-10)


@every_margin
@pytest.mark.parametrize(("world_size", "rounds"), [(1, 5), (2, 1), (3, 2)])
def test_the_state_depends_on_neither_ranks_nor_rounds(name: str, world_size: int, rounds: int) -> None:
    alone = [step.state for step in _ran(1)[0][name]]
    for answer in _ran(world_size, rounds):
        for step, state in zip(answer[name], alone):
            torch.testing.assert_close(step.state, state, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(name for name in PUBLISHED if not name.endswith("_plus")))
@pytest.mark.parametrize(("world_size", "rounds"), [(1, 5), (3, 2)])
def test_losses_and_gradients_do_not_depend_on_the_rounds_of_a_step(name: str, world_size: int, rounds: int) -> None:
    answers = [answer[name] for answer in _ran(world_size, rounds)]
    for whole, *parts in zip(_ran(1)[0][name], *answers):
        torch.testing.assert_close(parts[0].loss, whole.loss, rtol=1e-10, atol=1e-12)
        embeddings, centers = (torch.cat([getattr(part, key) for part in parts]) for key in ("embeddings", "centers"))
        torch.testing.assert_close(embeddings, whole.embeddings, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(centers, whole.centers, rtol=1e-10, atol=1e-10)
