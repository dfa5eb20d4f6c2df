import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from support import run_ranks

from arcdist.errors import DataError
from arcdist.evaluate import identification
from arcdist.evaluate.tinyface import read_tinyface, score_tinyface


def test_the_real_lists_hold_4443_and_3728_faces(data_root: Path) -> None:
    folder = data_root / "protocols" / "tinyface"
    names, people = read_tinyface(folder / "gallery_match_img_ID_pairs.mat")
    probes, probe_people = read_tinyface(folder / "probe_img_ID_pairs.mat")
    assert (len(names), len(probes), names[0], probes[0]) == (4443, 3728, "1_106.jpg", "1_162.jpg")
    assert (people.min(), people.max(), len(set(people.tolist()))) == (1, 2569, 2569)
    assert len(set(probe_people.tolist())) == 2563
    assert set(probe_people.tolist()) <= set(people.tolist())
    _, mates = np.unique(people, return_counts=True)
    assert (mates.min(), mates.max()) == (1, 29)
    prefix = [int(name.split("_")[0]) for name in names + probes]
    assert len(set(prefix)) == len(set(zip(prefix, [*people.tolist(), *probe_people.tolist()]))) == 2569


def tiny(seed: int = 0) -> tuple:
    random = np.random.default_rng(seed)
    gallery_people = np.concatenate([np.arange(8), random.integers(8, size=12)])
    probe_people = random.integers(8, size=25)
    centers = random.normal(size=(8, 5))
    probes, gallery = (
        torch.from_numpy(centers[who] + random.normal(size=(len(who), 5))) for who in (probe_people, gallery_people)
    )
    return probes, probe_people, gallery, gallery_people, torch.from_numpy(random.normal(size=(40, 5)))


def as_the_scorer_does(probes, probe_people, gallery, gallery_people, distractors) -> tuple[np.ndarray, float]:
    """Return first places and mAP by sorting, after the description of the benchmark's scorer."""
    everybody = torch.nn.functional.normalize(torch.cat([gallery, distractors])).numpy()
    people = np.concatenate([gallery_people, np.full(len(distractors), -100)])
    places, precisions = [], []
    for probe, person in zip(torch.nn.functional.normalize(probes).numpy(), probe_people):
        order = np.argsort(np.linalg.norm(everybody - probe, axis=1))
        good = np.flatnonzero(people[order] == person)
        places.append(good[0] + 1)
        area = 0.0
        for found, row in enumerate(good):
            before = found / row if row else 1.0
            area += (before + (found + 1) / (row + 1)) / 2 / len(good)
        precisions.append(area)
    return np.array(places), float(np.mean(precisions))


@pytest.mark.parametrize("scores_at_once", [1, 2**24])
def test_figures_are_those_of_the_scorer(monkeypatch: pytest.MonkeyPatch, scores_at_once: int) -> None:
    monkeypatch.setattr(identification, "_SCORES_AT_ONCE", scores_at_once)
    given = tiny()
    places, precision = as_the_scorer_does(*given)
    result = score_tinyface(*given)
    assert result.rank == {k: np.mean(places <= k) for k in (1, 5, 10, 20, 50)}
    assert result.mean_average_precision == pytest.approx(precision, abs=1e-12)
    assert (result.probes, result.gallery, result.distractors) == (25, 20, 40)
    assert json.loads(json.dumps(result.as_dict()))["rank"]["1"] == result.rank[1]


def _figures() -> tuple:
    result = score_tinyface(*tiny())
    return result.rank, result.mean_average_precision


def test_figures_do_not_depend_on_world_size() -> None:
    alone = _figures()
    for rank, precision in run_ranks(_figures, 2):
        assert rank == alone[0]
        assert precision == pytest.approx(alone[1], abs=1e-12)


def test_a_network_that_says_the_same_of_all_finds_nobody() -> None:
    result = score_tinyface(torch.ones(2, 3), [0, 1], torch.ones(2, 3), [0, 1], torch.ones(60, 3))
    assert set(result.rank.values()) == {0.0}


def test_a_probe_without_a_mate_is_refused() -> None:
    probes, probe_people, *others = tiny()
    probe_people[3] = 77
    with pytest.raises(DataError, match="1 probes have no mate in the gallery; the first is row 3"):
        score_tinyface(probes, probe_people, *others)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"probe_ids": np.arange(2)}, "holds probe_ids; one list of names"),
        ({"probe_set": np.array(["a", "b"], object), "probe_ids": np.arange(3)}, "2 names and 3 ids"),
        ({"probe_set": np.array(["a", "a"], object), "probe_ids": np.arange(2)}, "1 names are there twice"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, variables: dict, message: str) -> None:
    scipy.io.savemat(tmp_path / "probe.mat", variables)
    with pytest.raises(DataError, match=message):
        read_tinyface(tmp_path / "probe.mat")
