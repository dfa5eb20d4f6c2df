import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import ijb, metrics
from arcdist.evaluate.ijb import identify_templates, pair_scores, verify_templates
from arcdist.evaluate.ijb_lists import People, TemplatePairs
from arcdist.evaluate.templates import Templates, pool_templates

FARS = (1e-3, 1e-2, 1e-1)


def benchmark(people: int = 24, probes_each: int = 4, seed: int = 0) -> tuple[Templates, list[People], People]:
    """Return a small IJB: two galleries that share the people, a template each, and several probes a person."""
    random = np.random.default_rng(seed)
    subject = np.concatenate([np.arange(people), np.repeat(np.arange(people), probes_each)]) + 500
    ids = random.permutation(len(subject)) * 3 + 11
    embeddings = random.normal(size=(people, 6))[subject - 500] + 0.8 * random.normal(size=(len(subject), 6))
    order = np.argsort(ids)
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings[order]))
    half = people // 3
    galleries = [People(ids[rows], subject[rows]) for rows in (slice(0, half), slice(half, people))]
    return Templates(ids[order], unit), galleries, People(ids[people:], subject[people:])


def all_pairs(galleries: list[People], probes: People) -> TemplatePairs:
    listed = list(
        itertools.product(
            zip(
                *map(
                    np.ravel,
                    (
                        np.concatenate([each.template for each in galleries]),
                        np.concatenate([each.subject for each in galleries]),
                    ),
                )
            ),
            zip(probes.template, probes.subject),
        )
    )
    first, second, same = zip(*((one[0], other[0], one[1] == other[1]) for one, other in listed))
    return TemplatePairs(np.array(first), np.array(second), np.array(same))


def cosine(templates: Templates, first: int, second: int) -> float:
    rows = [templates.ids.tolist().index(each) for each in (first, second)]
    return float(templates.embeddings[rows[0]] @ templates.embeddings[rows[1]])


def test_verification_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijb, "_SCORES_AT_ONCE", 1000)
    templates, galleries, probes = benchmark()
    pairs = all_pairs(galleries, probes)
    plain = np.array([cosine(templates, first, second) for first, second in zip(pairs.first, pairs.second)])
    np.testing.assert_allclose(pair_scores(templates, pairs), plain, rtol=0, atol=1e-12)

    result = verify_templates(templates, pairs, FARS)
    for far in FARS:
        expected = metrics.tar_at_far(plain[pairs.same], plain[~pairs.same], far)
        assert result.rates.tar_at_far[far] == pytest.approx(expected, abs=1e-12)
    assert (result.rates.genuine, result.rates.impostor) == (96, 24 * 96 - 96)
    assert json.loads(json.dumps(result.as_dict()))["tar_at_far"]["0.001"] == result.rates.tar_at_far[1e-3]


def test_images_as_templates_score_what_a_real_network_scores(data_root: Path) -> None:
    with np.load(data_root / "sface_dev_embeddings.npz") as arrays:
        embeddings, same = torch.from_numpy(arrays["embeddings"]).double(), arrays["issame"]
    known = json.loads((data_root / "sface_metrics.json").read_text())["lfw_dev"]
    rows = np.arange(len(embeddings))
    templates = pool_templates(embeddings, rows)
    result = verify_templates(templates, TemplatePairs(rows[0::2], rows[1::2], same), [1e-2, 1e-3])
    assert round(result.rates.tar_at_far[1e-2], 6) == known["tar_at_far_1e_2"]
    assert round(result.rates.tar_at_far[1e-3], 6) == known["tar_at_far_1e_3"]


def test_a_pair_without_images_is_refused() -> None:
    templates, galleries, probes = benchmark()
    pairs = all_pairs(galleries, probes)
    pairs.second[7] = 4
    with pytest.raises(DataError, match="template pairs: 1 of .* the first is 4, entry 8"):
        verify_templates(templates, pairs)


@pytest.mark.parametrize("same", [True, False])
def test_a_list_of_one_kind_is_refused(same: bool) -> None:
    templates, galleries, probes = benchmark()
    pairs = all_pairs(galleries, probes)
    pairs.same[:] = same
    with pytest.raises(DataError, match="at least one .* pair is needed"):
        verify_templates(templates, pairs)


def plain_gallery(templates: Templates, gallery: People, probes: People) -> tuple[list, list, list]:
    """Return the mates' scores, places, and the best scores of probes without a mate."""
    mates, places, best = [], [], []
    for template, subject in zip(probes.template, probes.subject):
        scores = {s: cosine(templates, template, t) for t, s in zip(gallery.template, gallery.subject)}
        if subject in scores:
            mates.append(scores[subject])
            places.append(sum(score >= mates[-1] for score in scores.values()))
        else:
            best.append(max(scores.values()))
    return mates, places, best


def test_official_identification_is_that_of_a_plain_loop() -> None:
    templates, galleries, probes = benchmark()
    plain = [plain_gallery(templates, gallery, probes) for gallery in galleries]
    result = identify_templates(templates, galleries, probes, fpirs=[0.01, 0.1], ranks=[1, 3])
    for k in (1, 3):
        assert result.rank[k] == pytest.approx(np.mean([np.mean(np.array(p) <= k) for _, p, _ in plain]), abs=1e-12)
    for fpir in (0.01, 0.1):
        found = [np.where(np.array(places) == 1, mates, -9.0) for mates, places, _ in plain]
        tpir = [metrics.tar_at_far(each, best, fpir) for each, (_, _, best) in zip(found, plain)]
        assert result.tpir_at_fpir[fpir] == pytest.approx(np.mean(tpir), abs=1e-12)
    assert (result.mated, result.probes) == ([32, 64], 96)
    assert json.loads(json.dumps(result.as_dict()))["rank"]["1"] == result.rank[1]


def test_identification_of_ijb_evals_by_name() -> None:
    templates, galleries, probes = benchmark()
    plain = [plain_gallery(templates, gallery, probes) for gallery in galleries]
    result = identify_templates(templates, galleries, probes, fpirs=[0.1], ranks=[1, 3], meaning="ijb_evals")
    for k in (1, 3):
        pooled = sum(np.sum(np.array(places) <= k) for _, places, _ in plain) / 96
        assert result.rank[k] == pytest.approx(pooled, abs=1e-12)
    tpir = []
    for mates, places, best in plain:
        threshold = sorted(best, reverse=True)[max(int(len(best) * 0.1) - 1, 0)]
        tpir.append(np.mean((np.array(places) == 1) & (np.array(mates) > threshold)))
    assert result.tpir_at_fpir[0.1] == pytest.approx(np.mean(tpir), abs=1e-12)


def test_the_concatenated_gallery_of_ijb_1n_by_name() -> None:
    templates, galleries, probes = benchmark()
    both = People(*(np.concatenate([getattr(each, name) for each in galleries]) for name in ("template", "subject")))
    mates, places, _ = plain_gallery(templates, both, probes)
    impostor = sorted(
        (
            cosine(templates, t, g)
            for t, s in zip(probes.template, probes.subject)
            for g, other in zip(both.template, both.subject)
            if s != other
        ),
        reverse=True,
    )
    result = identify_templates(templates, galleries, probes, fpirs=[0.01, 0.1], ranks=[1, 5], meaning="concatenated")
    assert result.rank == pytest.approx({k: np.mean(np.array(places) <= k) for k in (1, 5)}, abs=1e-12)
    for fpir in (0.01, 0.1):
        threshold = impostor[math.ceil(96 * fpir) - 1]
        assert result.tpir_at_fpir[fpir] == pytest.approx(np.mean(np.array(mates) > threshold), abs=1e-12)
        assert result.thresholds[0][fpir] == pytest.approx(threshold, abs=1e-12)


def test_perfect_templates_are_all_found() -> None:
    templates, galleries, probes = benchmark()
    subject_of = dict(zip(probes.template.tolist(), probes.subject.tolist()))
    for gallery in galleries:
        subject_of |= dict(zip(gallery.template.tolist(), gallery.subject.tolist()))
    perfect = Templates(templates.ids, torch.eye(24)[[subject_of[each] - 500 for each in templates.ids.tolist()]])
    result = identify_templates(perfect, galleries, probes)
    assert set(result.rank.values()) == set(result.tpir_at_fpir.values()) == {1.0}


def test_lists_that_break_the_rules_are_refused() -> None:
    templates, (first, second), probes = benchmark()
    with pytest.raises(DataError, match="person 500 is in the galleries 17 times"):
        identify_templates(templates, [first, People(second.template, first.subject[:1].repeat(16))], probes)
    with pytest.raises(DataError, match="template .* is in the galleries 17 times"):
        identify_templates(templates, [first, People(first.template[:1].repeat(16), second.subject)], probes)
    with pytest.raises(DataError, match="64 of 96 probes are of people in no gallery"):
        identify_templates(templates, [first], probes)
    with pytest.raises(ConfigError, match="meaning: 'best'"):
        identify_templates(templates, [first, second], probes, meaning="best")
