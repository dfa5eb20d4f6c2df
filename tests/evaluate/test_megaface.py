import json

import numpy as np
import pytest
import torch
from support import run_ranks

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import metrics, scores
from arcdist.evaluate.megaface import score_megaface


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BLOCK", 7)


def challenge(seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    person = random.integers(6, size=30)
    centers = random.normal(size=(6, 5))
    return {
        "probes": torch.from_numpy(centers[person] + 0.5 * random.normal(size=(30, 5))),
        "people": [f"person_{each}" for each in person],
        "distractors": torch.from_numpy(random.normal(size=(40, 5))),
        "noisy_probes": random.random(30) < 0.2,
        "noisy_distractors": random.random(40) < 0.2,
    }


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plainly(
    probes: torch.Tensor,
    people: list[str],
    distractors: torch.Tensor,
    noisy_probes: np.ndarray,
    noisy_distractors: np.ndarray,
    cleaning: str,
    k: int,
    far: float,
) -> tuple[float, float]:
    """Return rank-k and TAR at a FAR by plain loops over pairs."""
    rows, others, names = unit(probes.numpy()), unit(distractors.numpy()), np.array(people)
    if cleaning == "drop":
        rows, names, others = rows[~noisy_probes], names[~noisy_probes], others[~noisy_distractors]
    elif cleaning != "none":
        for row in np.flatnonzero(noisy_probes):
            rows[row] = unit(unit(probes.numpy())[(names == names[row]) & ~noisy_probes].sum(0))
    impostor = rows @ others.T
    if cleaning in ("insightface", "facex_zoo"):
        impostor[:, noisy_distractors] = 0.0 if cleaning == "facex_zoo" else -9.0
    found, genuine = [], []
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j and names[i] == names[j]:
                genuine.append(rows[i] @ rows[j])
                found.append(np.sum(impostor[i] >= genuine[-1]) < k)
    return float(np.mean(found)), metrics.tar_at_far(genuine, impostor.ravel(), far)


@pytest.mark.parametrize("cleaning", ["none", "drop", "insightface", "facex_zoo"])
def test_both_figures_are_those_of_plain_loops(cleaning: str) -> None:
    given = challenge()
    result = score_megaface(**given, cleaning=cleaning, ranks=(1, 5, 25), fars=(1e-2, 0.6, 0.9))
    for k in (1, 5, 25):
        for far in (1e-2, 0.6, 0.9):
            rank, tar = plainly(**given, cleaning=cleaning, k=k, far=far)
            assert result.rank[k] == pytest.approx(rank, abs=1e-12)
            assert result.verification.tar_at_far[far] == pytest.approx(tar, abs=1e-12)
    assert (result.noisy_probes, result.noisy_distractors) == (
        given["noisy_probes"].sum(),
        given["noisy_distractors"].sum(),
    )
    assert result.verification.impostor == result.probes * result.distractors
    assert json.loads(json.dumps(result.as_dict()))["rank"]["1"] == result.rank[1]


def test_a_mate_beside_its_double_is_a_miss_or_by_name_a_hit() -> None:
    given = {"probes": torch.eye(3)[[0, 0]], "people": ["a", "a"], "distractors": torch.eye(3)}
    assert score_megaface(**given).rank == {1: 0.0, 10: 1.0}
    assert score_megaface(**given, ties="hit").rank == {1: 1.0, 10: 1.0}


def _figures() -> dict:
    scores.BLOCK = 7
    return score_megaface(**challenge(), cleaning="facex_zoo", fars=(1e-2,)).as_dict()


def test_figures_do_not_depend_on_world_size() -> None:
    alone = _figures()
    assert run_ranks(_figures, 3) == [alone] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": ["a"] * 29}, "people: 29 for 30 probes"),
        ({"people": [str(row) for row in range(30)], "noisy_probes": None}, "a person with two probes is needed"),
        ({"noisy_probes": np.ones(30, bool)}, "probe 0: noisy, and so are all of person_"),
        ({"noisy_distractors": np.ones(40, bool)}, "a person with two probes is needed, and a distractor"),
        ({"noisy_distractors": np.zeros(39, bool)}, "noisy_distractors: bool of shape .* 40 booleans are needed"),
        ({"distractors": torch.zeros(40, 5)}, "gallery: .* have no direction"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_megaface(**challenge() | change, cleaning="insightface")


def test_an_unknown_cleaning_is_refused() -> None:
    with pytest.raises(ConfigError, match="cleaning: 'all'"):
        score_megaface(**challenge(), cleaning="all")
