"""What is decayed, and what an optimizer keeps from the start."""

from math import inf, nan

import pytest
import torch
from torch import nn

from arcdist.errors import ConfigError
from arcdist.optim import OptimConfig
from arcdist.optim.optimizers import set_learning_rate


def _net() -> tuple[nn.Module, nn.Parameter]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 2))
    return net, nn.Parameter(torch.randn(5, 2))


def test_weight_decay_is_on_weights_and_centers_only() -> None:
    net, centers = _net()
    optimizer = OptimConfig(weight_decay=0.1).build(net, centers)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net[0].weight), id(net[4].weight), id(centers)}


def test_decay_all_decays_all() -> None:
    optimizer = OptimConfig(weight_decay=0.1, decay_all=True).build(*_net())
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)


def test_what_is_not_trained_is_not_in_the_optimizer() -> None:
    net, centers = _net()
    net[1].weight.requires_grad_(False)
    optimizer = OptimConfig().build(net, centers)
    assert not any(p is net[1].weight for group in optimizer.param_groups for p in group["params"])


def test_a_part_moves_by_its_own_share_of_the_learning_rate_and_an_inner_part_by_its_own() -> None:
    moves = []
    for scales in ([], ["0:0.5", "4:0.1"]):
        net, centers = _net()
        before = [parameter.detach().clone() for parameter in net.parameters()]
        optimizer = OptimConfig(lr=0.1, momentum=0.0, weight_decay=0.0, lr_scales=scales).build(net, centers)
        net.eval()
        net(torch.ones(2, 3, 3, 3)).sum().backward()
        set_learning_rate(optimizer, 0.1)
        optimizer.step()
        moves.append([new.detach() - old for new, old in zip(net.parameters(), before)])
    for whole, scaled, share in zip(*moves, [0.5, 0.5, 1, 1, 1, 0.1, 0.1], strict=True):
        torch.testing.assert_close(scaled, share * whole, rtol=1e-4, atol=1e-7)


def test_a_part_with_two_shares_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr_scales: 4:0\.2: 4 has 0\.1 already"):
        OptimConfig(lr_scales=["4:0.1", "0:0.5", "4:0.2"]).validate()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_made_beforehand_changes_no_step(name: str) -> None:
    results = []
    for fresh in (False, True):
        net, centers = _net()
        optimizer = OptimConfig(name, lr=0.01).build(net, centers)
        if fresh:
            optimizer.state.clear()
        for _ in range(3):
            net(torch.ones(2, 3, 3, 3)).square().sum().backward()
            centers.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(torch.cat([p.detach().flatten() for p in [*net.parameters(), centers]]))
    assert torch.equal(*results)


def test_centers_may_learn_at_another_rate() -> None:
    net, centers = _net()
    optimizer = OptimConfig(lr=1, centers_lr=10).build(net, centers)
    set_learning_rate(optimizer, 0.5)
    assert {id(group["params"][0]): group["lr"] for group in optimizer.param_groups}[id(centers)] == 5
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", "lion"), ("lr", 0), ("momentum", 1), ("weight_decay", -1), ("centers_lr", 0)),
        *((key, value) for key in ("lr", "centers_lr", "weight_decay", "momentum", "beta2") for value in (nan, inf)),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"optim.{key}"):
        OptimConfig(**{key: value}).validate()
