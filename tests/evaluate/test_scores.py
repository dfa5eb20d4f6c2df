import pytest
import torch
from support import run_ranks

from arcdist.errors import DataError
from arcdist.evaluate import scores
from arcdist.evaluate.scores import NearestRows, TopScores, matrix_blocks, triangle_blocks, unit_rows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BLOCK", 7)


def vectors(rows: int, seed: int = 0, dim: int = 4) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(probes: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(probes[:, None], gallery[None], dim=2)


@pytest.mark.parametrize(("probes", "gallery"), [(1, 1), (7, 14), (15, 22)])
def test_blocks_are_the_whole_matrix(probes: int, gallery: int) -> None:
    first, second = vectors(probes), vectors(gallery, 1)
    found = torch.full((probes, gallery), torch.nan, dtype=torch.float64)
    for rows, columns, block in matrix_blocks(first, second):
        assert found[rows, columns].isnan().all()
        found[rows, columns] = block
    torch.testing.assert_close(found, cosines(first, second), rtol=0, atol=1e-12)


def test_chosen_rows_of_a_gallery_are_its_columns() -> None:
    probes, gallery, chosen = vectors(3), vectors(20, 1), torch.tensor([19, 0, 4, 4, 7, 8, 9, 10])
    found = torch.cat([block for _, _, block in matrix_blocks(probes, gallery, chosen)], 1)
    torch.testing.assert_close(found, cosines(probes, gallery[chosen]), rtol=0, atol=1e-12)


def test_the_triangle_holds_every_pair_once() -> None:
    embeddings, order = vectors(17), torch.randperm(17, generator=torch.Generator().manual_seed(3))
    found = torch.zeros(17, 17, dtype=torch.float64)
    for rows, columns, block in triangle_blocks(embeddings, order):
        found[rows, columns] += block
    expected = cosines(embeddings[order], embeddings[order])
    torch.testing.assert_close(found.triu(), expected.triu(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 5, 60, 1000])
def test_top_scores_are_those_of_a_sort(count: int) -> None:
    random = torch.Generator().manual_seed(count)
    stream = torch.randint(0, 40, (12, 5, 6), generator=random).double()  # with many ties
    stream[3] = -torch.inf
    keeper = TopScores(count, stream.new_empty(0))
    for block in stream:
        keeper.add(block)
    expected = stream[stream.isfinite()].sort(descending=True).values[:count]
    assert torch.equal(keeper.highest(), expected)


@pytest.mark.parametrize("count", [1, 3, 25])
def test_nearest_rows_are_those_of_a_sort(count: int) -> None:
    probes, gallery = vectors(9), vectors(23, 1)
    keeper = NearestRows(9, count, probes)
    for block in matrix_blocks(probes, gallery):
        keeper.add(block)
    found, columns = keeper.nearest()
    expected = cosines(probes, gallery).sort(1, descending=True)
    known = min(count, 23)
    torch.testing.assert_close(found[:, :known], expected.values[:, :known], rtol=0, atol=1e-12)
    assert torch.equal(columns[:, :known], expected.indices[:, :known])
    assert (found[:, known:] == -torch.inf).all()
    assert (columns[:, known:] == -1).all()


def _kept() -> tuple[torch.Tensor, ...]:
    scores.BLOCK = 7
    probes, gallery = vectors(9), vectors(31, 1)
    top, nearest = TopScores(40, probes.new_empty(0)), NearestRows(9, 3, probes)
    for block in matrix_blocks(probes, gallery):
        top.add(block.scores)
        nearest.add(block)
    return top.highest(), *nearest.nearest()


def test_what_is_kept_does_not_depend_on_world_size() -> None:
    alone = _kept()
    for answer in run_ranks(_kept, 3):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(answer, alone))


def test_rows_without_direction_are_refused_by_their_number() -> None:
    gallery = vectors(20)
    gallery[17, 2] = torch.nan
    with pytest.raises(DataError, match="gallery: 1 of rows 14 to 19 .* row 17, with norm nan"):
        list(matrix_blocks(vectors(2), gallery))
    with pytest.raises(DataError, match="first is row 5, with norm 0"):
        unit_rows(torch.zeros(2, 3), "probes", 5)


def test_embeddings_of_two_networks_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 4\] and \[3, 5\] cannot be compared"):
        list(matrix_blocks(vectors(2), vectors(3, dim=5)))
