"""Collectives and their gradients on real ranks."""

import pytest
import torch
from support import run_ranks
from torch import Tensor

from arcdist.errors import DataError
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows


def _gather_and_differentiate() -> tuple[Tensor, Tensor]:
    rank = collectives.rank()
    rows = torch.full((2, 3), float(rank), dtype=torch.float64, requires_grad=True)
    gathered, numbers = collectives.gather_rows(rows, torch.full((2,), rank, dtype=torch.int32))
    assert torch.equal(numbers.double(), gathered[:, 0].detach())
    # Each rank weighs what it gathered by its own number: the sum over ranks must come back.
    (gradient,) = torch.autograd.grad((gathered * (rank + 1)).sum(), rows)
    return gathered.detach(), gradient


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_gathered_rows_are_in_rank_order_and_their_gradients_are_summed(world_size: int) -> None:
    expected = torch.arange(world_size, dtype=torch.float64).repeat_interleave(2)[:, None].expand(-1, 3)
    for gathered, gradient in run_ranks(_gather_and_differentiate, world_size):
        assert torch.equal(gathered, expected)
        assert torch.equal(gradient, torch.full((2, 3), sum(range(1, world_size + 1)), dtype=torch.float64))


def _join(parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mine = parts[collectives.rank()].clone().requires_grad_()
    joined, total = collectives.logsumexp_and_sum(mine, mine * 2)
    loss = (joined * torch.tensor([1.0, 2.0])).sum() + total.sum()
    (gradient,) = torch.autograd.grad(loss, mine)
    return joined.detach(), total.detach(), gradient


def test_joining_ranks_is_the_logsumexp_of_all_and_so_is_its_gradient() -> None:
    parts = torch.tensor([[0.5, -torch.inf], [2.0, 1.0], [-3.0, 90.0]], dtype=torch.float64)
    answers = run_ranks(_join, 3, parts)
    everyones = parts.clone().requires_grad_()
    whole = everyones.logsumexp(0)
    (whole * torch.tensor([1.0, 2.0])).sum().backward()
    assert everyones.grad is not None
    for rank, (joined, total, gradient) in enumerate(answers):
        torch.testing.assert_close(joined, whole.detach())
        assert torch.equal(total, 2 * parts.sum(0))
        torch.testing.assert_close(gradient, everyones.grad[rank] + 2)


def _uneven(counts: list[int]) -> Tensor:
    rank = collectives.rank()
    return collectives.gather_uneven_rows(torch.full((counts[rank], 2), float(rank)))


def test_ranks_may_give_any_number_of_rows() -> None:
    for gathered in run_ranks(_uneven, 3, [2, 0, 3]):
        assert gathered[:, 0].tolist() == [0, 0, 2, 2, 2]


def _fail_on_rank_0() -> str:
    def fail() -> None:
        raise DataError("no such file")

    try:
        collectives.from_rank_0(fail)
    except Exception as error:
        return type(error).__name__
    return "nothing"


def test_an_error_of_rank_0_stops_every_rank_and_only_rank_0_tells_it() -> None:
    assert run_ranks(_fail_on_rank_0, 3) == ["DataError", "PeerError", "PeerError"]


@pytest.mark.parametrize(("count", "world_size"), [(10, 3), (5, 4), (2, 3), (1, 1), (10007, 8)])
def test_shards_are_those_of_torch_chunk_and_cover_every_row_once(count: int, world_size: int) -> None:
    shards = [shard_rows(count, rank, world_size) for rank in range(world_size)]
    assert [row for shard in shards for row in shard] == list(range(count))
    chunks = [len(chunk) for chunk in torch.arange(count).chunk(world_size)]
    assert [len(shard) for shard in shards][: len(chunks)] == chunks
