from pathlib import Path

import numpy as np
import pytest
import torch
from support import run_ranks

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import identification, metrics, scores
from arcdist.evaluate.identification import Searches, rank_rates, search, search_people, tpir_at_fpir


def people(count: int, of: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, np.ndarray]:
    """Return embeddings around a center for each person, and whose they are."""
    labels = np.random.default_rng(seed).integers(of, size=count)
    centers = np.random.default_rng(99).normal(size=(of, 6))
    noise = spread * np.random.default_rng(seed + 1).normal(size=(count, 6))
    return torch.from_numpy(centers[labels] + noise), labels


def plain_searches(
    probes: torch.Tensor, probe_people: np.ndarray, gallery: torch.Tensor, gallery_people: np.ndarray, hit: bool = False
) -> Searches:
    cosine = (probes / probes.norm(dim=1, keepdim=True) @ (gallery / gallery.norm(dim=1, keepdim=True)).T).numpy()
    mate, other, place = [], [], []
    for row, person in zip(cosine, probe_people):
        mates, others = row[gallery_people == person], row[gallery_people != person]
        mate.append(max(mates, default=-np.inf))
        other.append(max(others, default=-np.inf))
        ahead = sum(score > mate[-1] if hit else score >= mate[-1] for score in others)
        place.append(1 + ahead if len(mates) else 0)
    return Searches(np.array(mate), np.array(other), np.array(place))


@pytest.mark.parametrize("scores_at_once", [1, 100, 2**24])
def test_searches_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch, scores_at_once: int) -> None:
    monkeypatch.setattr(identification, "_SCORES_AT_ONCE", scores_at_once)
    sides = (*people(50, 30, 0), *people(33, 20, 7))  # some people have several mates, some none
    found, plain = search_people(*sides), plain_searches(*sides)
    assert not plain.mated.all()
    np.testing.assert_allclose(found.mate, plain.mate, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.other, plain.other, rtol=0, atol=1e-12)
    assert found.rank.tolist() == plain.rank.tolist()


def test_a_tie_is_a_miss_or_by_name_a_hit() -> None:
    sides = (torch.eye(2)[[0]], np.array([1]), torch.eye(2)[[0, 0, 1]], np.array([1, 2, 3]))
    assert search_people(*sides).rank.tolist() == [2]
    assert search_people(*sides, ties="hit").rank.tolist() == [1]


def test_a_network_that_says_the_same_of_all_finds_nobody() -> None:
    same = torch.ones(5, 3)
    found = search_people(same, np.arange(5), same, np.arange(5))
    assert rank_rates(found, [1, 4, 5]) == {1: 0.0, 4: 0.0, 5: 1.0}


def test_search_returns_the_nearest_rows() -> None:
    probes, gallery = people(5, 5, 0)[0], people(40, 5, 1)[0]
    found, rows = search(probes, gallery, 3)
    cosine = torch.nn.functional.cosine_similarity(probes[:, None], gallery[None], dim=2)
    expected = cosine.sort(1, descending=True)
    torch.testing.assert_close(found, expected.values[:, :3], rtol=0, atol=1e-12)
    assert torch.equal(rows, expected.indices[:, :3])
    assert search(probes, gallery[:2], 3)[1].shape == (5, 2)
    with pytest.raises(ConfigError, match="count: 0"):
        search(probes, gallery, 0)


def test_a_gallery_may_be_half_precision_and_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "gallery.npy", np.eye(8, dtype=np.float16))
    gallery = torch.from_numpy(np.load(tmp_path / "gallery.npy", mmap_mode="c"))
    assert search(torch.eye(8), gallery, 1)[1].flatten().tolist() == list(range(8))


def _searched() -> tuple[list, ...]:
    scores.BLOCK, identification._SCORES_AT_ONCE = 7, 100
    probes, gallery = people(50, 30, 0), people(33, 20, 7)
    nearest = search(probes[0], gallery[0], 4)
    return *(part.tolist() for part in nearest), *(part.tolist() for part in search_people(*probes, *gallery))


def test_searches_do_not_depend_on_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BLOCK", 7)
    monkeypatch.setattr(identification, "_SCORES_AT_ONCE", 100)
    alone = _searched()
    for answer in run_ranks(_searched, 3):
        for ours, theirs in zip(answer, alone):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_rank_k_is_over_mated_probes_only() -> None:
    found = Searches(np.zeros(5), np.zeros(5), np.array([1, 0, 3, 2, 0]))
    assert rank_rates(found, [1, 2, 5]) == {1: 1 / 3, 2: 2 / 3, 5: 1.0}
    with pytest.raises(DataError, match="no probe has a mate"):
        rank_rates(Searches(np.zeros(2), np.zeros(2), np.zeros(2, int)), [1])


@pytest.mark.parametrize("most_rank", [1, None])
def test_tpir_is_the_best_of_any_threshold_that_keeps_fpir(most_rank: int | None) -> None:
    found = search_people(*people(80, 30, 0), *people(33, 20, 7))
    mated = found.mated
    for fpir in (0.0, 0.1, 0.35, 1.0):
        best = 0.0
        for threshold in [*found.mate, *found.other, np.inf]:
            if np.mean(found.other[~mated] >= threshold) <= fpir:
                right = (found.mate[mated] >= threshold) & (found.rank[mated] <= (most_rank or 99))
                best = max(best, np.mean(right & np.isfinite(found.mate[mated])))
        rate = tpir_at_fpir(found, [fpir], most_rank=most_rank)
        assert rate.tar_at_far[fpir] == pytest.approx(best, abs=1e-12)
        assert (rate.genuine, rate.impostor) == (mated.sum(), (~mated).sum())
    if most_rank is None:
        assert tpir_at_fpir(found, [0.1], most_rank=None).tar_at_far[0.1] == metrics.tar_at_far(
            found.mate[mated], found.other[~mated], 0.1
        )


@pytest.mark.parametrize("fpir", [1e-4, 0.1, 0.5, 1.0])
def test_the_threshold_of_ijb_evals_by_name(fpir: float) -> None:
    found = search_people(*people(80, 30, 0), *people(33, 20, 7))
    mated = found.mated
    falling = np.sort(found.other[~mated])[::-1]
    threshold = falling[max(int(len(falling) * fpir) - 1, 0)]
    right = (found.mate > found.other) & (found.mate > threshold)
    assert tpir_at_fpir(found, [fpir], threshold="ijb_evals").tar_at_far[fpir] == np.mean(right[mated])


@pytest.mark.parametrize("rank", [[0, 0], [1, 2]], ids=["nobody mated", "all mated"])
def test_a_closed_set_has_no_fpir(rank: list[int]) -> None:
    with pytest.raises(DataError, match="of 2 probes have a mate in the gallery; an open set has both kinds"):
        tpir_at_fpir(Searches(np.zeros(2), np.zeros(2), np.array(rank)), [0.1])


def test_embeddings_and_people_that_do_not_fit_are_refused() -> None:
    probes, who = people(5, 5, 0)
    with pytest.raises(DataError, match="embeddings .* need as many integers"):
        search_people(probes, who[:4], probes, who)
    probes[2] = torch.nan
    with pytest.raises(DataError, match="gallery: .* the first is row 2"):
        search_people(torch.ones(5, 6), who, probes, who)
    with pytest.raises(ConfigError, match="ties: 'draw'"):
        search_people(probes, who, probes, who, ties="draw")
