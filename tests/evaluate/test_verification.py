import contextlib
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.verification import pair_cosines, read_embeddings, verify


def noisy_pairs(pairs: int, noise: float = 0.8, dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and labels: the two images of a genuine pair share a direction, up to noise."""
    random = np.random.default_rng(seed)
    same = random.random(pairs) < 0.5
    identity = random.normal(size=(pairs, 2, dim))
    identity[same, 1] = identity[same, 0]
    return (identity + noise * random.normal(size=identity.shape)).reshape(2 * pairs, dim), same


def at_distance(distances: list[float]) -> np.ndarray:
    """Return embeddings in the plane whose pairs have these squared distances."""
    angle = 2 * np.arcsin(np.sqrt(distances) / 2)
    both = np.stack([np.zeros_like(angle), angle], axis=1).ravel()
    return np.stack([np.cos(both), np.sin(both)], axis=1)


def test_known_numbers_of_a_real_network(data_root: Path) -> None:
    result = verify(*read_embeddings(data_root / "sface_dev_embeddings.npz"))
    known = json.loads((data_root / "sface_metrics.json").read_text())["lfw_dev"]

    assert round(result.accuracy, 6) == known["accuracy_mean"]
    assert round(result.std, 6) == known["accuracy_std"]
    assert np.round(result.fold_accuracies, 6).tolist() == known["fold_accuracies"]
    assert np.round(result.thresholds, 2).tolist() == known["fold_thresholds"]
    assert round(result.tar_at_far[1e-2], 6) == known["tar_at_far_1e_2"]
    assert round(result.tar_at_far[1e-3], 6) == known["tar_at_far_1e_3"]
    assert round(result.eer, 6) == known["eer"]
    assert round(result.auc, 6) == known["auc"]
    assert (result.pairs, result.genuine) == (known["pairs"], known["genuine"])


def test_thresholds_and_accuracies_are_those_of_a_plain_loop() -> None:
    embeddings, same = noisy_pairs(103)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distance = np.sum((unit[0::2] - unit[1::2]) ** 2, axis=1)
    thresholds, accuracies = [], []
    starts = [0, 11, 22, 33, 43, 53, 63, 73, 83, 93, 103]  # the first three folds hold one pair more
    for start, stop in itertools.pairwise(starts):
        others = [row for row in range(103) if not start <= row < stop]
        grid = np.arange(0, 4, 0.01)
        on_others = [np.mean((distance[others] < threshold) == same[others]) for threshold in grid]
        thresholds.append(grid[np.argmax(on_others)])
        accuracies.append(np.mean((distance[start:stop] < thresholds[-1]) == same[start:stop]))

    result = verify(embeddings, same)

    assert result.thresholds == thresholds
    assert result.fold_accuracies == accuracies
    assert result.accuracy == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert result.std == pytest.approx(np.std(accuracies), abs=1e-12)
    assert result.standard_error == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(10), abs=1e-12)


def test_a_pair_at_the_threshold_is_an_impostor() -> None:
    orthogonal = [[1.0, 0.0], [0.0, 1.0]]  # squared distance 2 exactly, which is a point of the grid
    embeddings = np.concatenate([[*at_distance([1.995]), *orthogonal]] * 10)
    result = verify(embeddings, [True, False] * 10)
    assert result.thresholds == [2.0] * 10
    assert result.accuracy == 1.0


def test_a_genuine_pair_at_a_point_of_the_grid_is_accepted_from_the_next_on() -> None:
    opposite = [[1.0, 0.0], [-1.0, 0.0]]
    result = verify(np.array([[1.0, 0.0], [0.0, 1.0], *opposite] * 10), [True, False] * 10)
    assert result.thresholds == pytest.approx([2.01] * 10)
    assert result.accuracy == 1.0


@pytest.mark.parametrize(("impostors", "targets"), [(9_999, 3), (10_000, 4)])
def test_tar_at_1e_4_is_told_from_one_false_accept_on(impostors: int, targets: int) -> None:
    embeddings = at_distance([0.5] * 10 + [2.5] * impostors)
    assert len(verify(embeddings, [True] * 10 + [False] * impostors).tar_at_far) == targets


def test_exact_grid_finds_a_threshold_between_two_points_of_the_other_grid() -> None:
    embeddings = at_distance([1.002, 1.008] * 10)
    same = [True, False] * 10
    assert verify(embeddings, same).accuracy == 0.5
    result = verify(embeddings, same, grid="exact")
    assert result.accuracy == 1.0
    assert result.thresholds == pytest.approx([1.005] * 10)


def test_exact_thresholds_are_at_least_as_good_on_the_other_folds() -> None:
    embeddings, same = noisy_pairs(200, noise=1.2)
    genuine, impostor = pair_cosines(embeddings, same)
    distance = np.empty(200)
    distance[same], distance[~same] = 2 - 2 * genuine, 2 - 2 * impostor
    coarse, exact = verify(embeddings, same), verify(embeddings, same, grid="exact")
    for fold, part in enumerate(np.array_split(np.arange(200), 10)):
        others = np.delete(np.arange(200), part)
        right = [np.mean((distance[others] < r.thresholds[fold]) == same[others]) for r in (coarse, exact)]
        assert right[1] >= right[0]


def test_the_length_of_an_embedding_does_not_matter() -> None:
    embeddings, same = noisy_pairs(100)
    lengths = 2.0 ** np.random.default_rng(1).integers(-8, 8, size=(200, 1))  # powers of two, so without rounding
    assert verify(embeddings * lengths, same) == verify(embeddings, same)


def test_the_order_of_pairs_inside_a_fold_does_not_matter() -> None:
    embeddings, same = noisy_pairs(100)
    order = np.arange(100).reshape(10, 10)
    order = np.random.default_rng(1).permuted(order, axis=1).ravel()
    shuffled = embeddings.reshape(100, 2, -1)[order].reshape(200, -1)
    assert verify(shuffled, same[order]) == verify(embeddings, same)


def test_embeddings_may_be_torch_tensors_and_labels_a_list() -> None:
    embeddings, same = noisy_pairs(50)
    assert verify(torch.from_numpy(embeddings), same.tolist()) == verify(embeddings, same)


def test_tar_at_far_1e_4_is_given_where_it_allows_a_false_accept() -> None:
    few, many = noisy_pairs(100), noisy_pairs(21_000, dim=4)
    assert set(verify(*few).tar_at_far) == {1e-1, 1e-2, 1e-3}
    assert set(verify(*many).tar_at_far) == {1e-1, 1e-2, 1e-3, 1e-4}


def test_result_is_json() -> None:
    result = verify(*noisy_pairs(50))
    assert json.loads(json.dumps(result.as_dict())) == result.as_dict()
    assert result.as_dict()["tar_at_far"]["0.001"] == result.tar_at_far[1e-3]


def test_cosines_are_split_by_label() -> None:
    genuine, impostor = pair_cosines([[1.0, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, 2.0]], [True, False])
    assert genuine == pytest.approx([1.0])
    assert impostor == pytest.approx([0.0])


def test_six_thousand_pairs_take_less_than_a_fifth_of_a_second() -> None:
    embeddings, same = noisy_pairs(6000, dim=512)
    embeddings = embeddings.astype(np.float32)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        verify(embeddings, same)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2


def with_row(value: float) -> np.ndarray:
    embeddings, _ = noisy_pairs(20)
    embeddings[7] = value
    return embeddings


@pytest.mark.parametrize(
    ("embeddings", "same", "message"),
    [
        (with_row(np.nan), [True, False] * 10, r"1 of 40 embeddings .* row 7 \(pair 3\) with norm nan"),
        (with_row(np.inf), [True, False] * 10, "norm inf"),
        (with_row(0.0), [True, False] * 10, r"no direction.*norm 0\.0"),
        (with_row(1.0), [True, False] * 9, r"\(40, 16\).*\(18,\).*do not fit"),
        (with_row(1.0), [True] * 20, "20 of 20 pairs are genuine"),
        (with_row(1.0), [False] * 20, "0 of 20 pairs are genuine"),
        (with_row(1.0), [1, -1] * 10, r"labels are \[-1, 1\]"),
        (with_row(1.0)[:12], [True, False] * 3, "6 pairs cannot be split into 10 folds"),
        (np.zeros((0, 4)), [], "0 of 0 pairs"),
    ],
    ids=["nan", "infinite", "zero", "lengths", "all genuine", "all impostor", "labels", "few pairs", "no pairs"],
)
def test_bad_lists_are_refused_by_name(embeddings: np.ndarray, same: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        verify(embeddings, same)


@pytest.mark.parametrize(("wrong", "message"), [({"folds": 1}, "folds: 1"), ({"grid": "fine"}, "grid: 'fine'")])
def test_bad_settings_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verify(*noisy_pairs(20), **wrong)


def test_embeddings_files_of_either_kind_are_read_alike(tmp_path: Path) -> None:
    embeddings, same = noisy_pairs(20)
    np.savez(tmp_path / "both.npz", embeddings=embeddings, issame=same)
    np.save(tmp_path / "lfw.npy", embeddings)
    np.save(tmp_path / "lfw_list.npy", same)
    assert verify(*read_embeddings(tmp_path / "both.npz")) == verify(*read_embeddings(tmp_path / "lfw.npy"))


def test_embeddings_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", features=np.zeros((2, 2)))
    np.save(tmp_path / "alone.npy", np.zeros((2, 2)))
    np.save(tmp_path / "pickled.npy", np.array([{"code": 1}]), allow_pickle=True)
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "objects.npz", embeddings=np.array([{}, {}]), issame=np.array([True]))
    np.savez(tmp_path / "complex.npz", embeddings=np.zeros((2, 2), complex), issame=np.array([True]))
    np.savez(tmp_path / "words.npz", embeddings=np.zeros((2, 2)), issame=np.array(["yes"]))
    np.save(tmp_path / "one.npy", np.zeros((2, 2)))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "many.npy").write_bytes((tmp_path / "other.npz").read_bytes())
    for name, message in [
        ("other.npz", "no array embeddings and issame; the file holds features"),
        ("alone.npy", r"alone_list\.npy: no such file"),
        ("pickled.npy", "pickled objects"),
        ("text.npz", "not a numpy file"),
        ("missing.npz", "no such file"),
        ("objects.npz", "pickled objects"),
        ("complex.npz", "embeddings: is an array of complex128, not of real numbers"),
        ("words.npz", "issame: is an array of <U3"),
        ("one.npz", "holds one array"),
        ("many.npy", "holds an archive"),
        ("x.txt", "embeddings are read from"),
    ]:
        with pytest.raises(DataError, match=message):
            read_embeddings(tmp_path / name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_embeddings_file_is_refused_by_name_or_read(tmp_path: Path, save: Callable[..., None]) -> None:
    embeddings, same = noisy_pairs(20)
    path = tmp_path / "x.npz"
    save(path, embeddings=embeddings, issame=same)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for attempt in range(200):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= random.integers(1, 256)
        path.write_bytes(damaged[: random.integers(len(whole))] if attempt % 4 == 0 else damaged)
        with contextlib.suppress(DataError):
            assert len(read_embeddings(path)) == 2
