"""Verification as LFW does it: are two images of one person? Accuracy over folds, and the measures of the whole ROC.

The protocol is insightface's (``recognition/arcface_torch/eval/verification.py``): unit embeddings, squared L2
distance, contiguous folds in the order of the list, and for each fold the threshold that is best on the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate import metrics

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FOLDS = 10
METRICS = ("accuracy", "auc", "eer")  # of a result, one number each that says how good it is
FAR_TARGETS = (1e-1, 1e-2, 1e-3)
FAR_TARGETS_LARGE = (1e-4,)  # only where it allows at least one false accept


@dataclass(frozen=True)
class VerificationResult:
    """What a list of pairs scores. Distances are squared L2 of unit embeddings, in [0, 4]."""

    accuracy: float
    """Mean of the folds' accuracies."""
    std: float
    """Population standard deviation of the folds' accuracies: the ± that the field prints."""
    standard_error: float
    """LFW's official spread: standard deviation with ``folds − 1``, divided by ``√folds``."""
    thresholds: list[float]
    """For each fold, the distance below which its pairs were accepted, chosen on the other folds."""
    fold_accuracies: list[float]
    tar_at_far: dict[float, float]
    eer: float
    auc: float
    pairs: int
    genuine: int
    grid: str

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it; the keys of ``tar_at_far`` become ``"0.001"``."""
        return asdict(self) | {"tar_at_far": {str(far): tar for far, tar in self.tar_at_far.items()}}


def verify(
    embeddings: npt.ArrayLike,
    same: npt.ArrayLike,
    *,
    folds: int = FOLDS,
    grid: Literal["insightface", "exact"] = "insightface",
) -> VerificationResult:
    """Return what these pairs score; accuracy and spread are over ``folds`` contiguous parts of the list.

    Args:
        embeddings: ``[2P, D]``, two consecutive rows a pair, of any length: with flip, ``e(img) + e(flip(img))``.
        same: ``[P]``, true where the pair is genuine.
        folds: parts of the list; where P does not divide, the first parts are one pair longer. The accuracy is the
            mean over folds, as LFW prescribes; with unequal folds that is not the share of all pairs.
        grid: where a threshold is looked for. ``insightface``: ``0, 0.01, … 3.99``, for comparison with papers.
            ``exact``: midway between neighboring distances of the other folds. The smallest of the best is taken.

    Raises DataError for embeddings that are not finite or have no direction, lengths that do not fit, fewer pairs
    than folds, and a list without genuine or without impostor pairs.
    """
    distance, same = _pair_distances(embeddings, same)
    if folds < 2:
        raise ConfigError(f"folds: {folds}: must be at least 2, a threshold is chosen on the other folds")
    if len(same) < folds:
        raise DataError(f"{len(same)} pairs cannot be split into {folds} folds; give more pairs or fewer folds")

    parts = np.array_split(np.arange(len(same)), folds)
    if grid == "insightface":
        thresholds = _best_on_grid(distance, same, parts)
    elif grid == "exact":
        thresholds = _best_between_distances(distance, same, parts)
    else:
        raise ConfigError(f"grid: {grid!r}: must be 'insightface' or 'exact'")
    fold_accuracies = np.array(
        [np.mean((distance[part] < threshold) == same[part]) for part, threshold in zip(parts, thresholds)]
    )

    genuine, impostor = -distance[same], -distance[~same]
    targets = FAR_TARGETS + tuple(far for far in FAR_TARGETS_LARGE if far * len(impostor) >= 1)
    return VerificationResult(
        accuracy=float(fold_accuracies.mean()),
        std=float(fold_accuracies.std()),
        standard_error=float(fold_accuracies.std(ddof=1) / np.sqrt(folds)),
        thresholds=[float(threshold) for threshold in thresholds],
        fold_accuracies=fold_accuracies.tolist(),
        tar_at_far={far: metrics.tar_at_far(genuine, impostor, far) for far in targets},
        eer=metrics.eer(genuine, impostor),
        auc=metrics.auc(genuine, impostor),
        pairs=len(same),
        genuine=len(genuine),
        grid=grid,
    )


def require_folds(same: Bools, path: object) -> None:
    """Raise DataError where a list's pairs, genuine where ``same`` is true, cannot be scored; before they are embedded.

    Args:
        path: the list, for the message.
    """
    count, genuine = len(same), int(same.sum())
    if count < FOLDS:
        raise DataError(f"{path}: {count} pairs cannot be split into {FOLDS} folds; a set needs at least {FOLDS} pairs")
    if genuine in (0, count):
        raise DataError(f"{path}: {genuine} of {count} pairs are genuine: both genuine and impostor pairs are needed")


def pair_cosines(embeddings: npt.ArrayLike, same: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the cosines ``(genuine, impostor)`` of the pairs, each in the order of the list.

    Args:
        embeddings: ``[2P, D]``, two consecutive rows a pair, of any length.
        same: ``[P]``, true where the pair is genuine.
    """
    distance, same = _pair_distances(embeddings, same)
    cosine = 1.0 - distance / 2.0
    return cosine[same], cosine[~same]


def read_embeddings(path: str | Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    """Return ``(embeddings, same)`` as a file holds them, ready for ``verify``.

    ``NAME.npz`` holds the arrays ``embeddings`` and ``issame``; beside ``NAME.npy``, which holds the embeddings,
    lies ``NAME_list.npy``, the name that the field gives to the labels of a set. Pickled arrays are refused.

    Raises DataError for a file that is missing, damaged, of the other kind, or holds anything but real numbers.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".npy":
        return _read_npy(path), _read_npy(path.with_name(f"{path.stem}_list.npy"))
    raise DataError(f"{path}: embeddings are read from .npz (arrays embeddings, issame) or .npy (and NAME_list.npy)")


def _read_npz(path: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    with _open(path) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: holds one array and no archive of them; call it .npy")
        missing = {"embeddings", "issame"} - set(arrays)
        if missing:
            raise DataError(
                f"{path}: no array {' and '.join(sorted(missing))}; the file holds {', '.join(arrays) or 'nothing'}"
            )
        return _numbers(arrays["embeddings"], f"{path}: embeddings"), _numbers(arrays["issame"], f"{path}: issame")


def _read_npy(path: Path) -> npt.NDArray[np.generic]:
    with _open(path) as array:
        if isinstance(array, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: holds an archive of arrays and not one; call it .npz")
        return _numbers(array, str(path))


@contextlib.contextmanager
def _open(path: Path) -> Generator[Any]:
    """Yield what numpy reads from a file; an archive's arrays are read where they are asked for, so in the block."""
    try:
        loaded = np.load(path, allow_pickle=False)
        with loaded if isinstance(loaded, np.lib.npyio.NpzFile) else contextlib.nullcontext():
            yield loaded
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a damaged file raises whatever zipfile, zlib and numpy come upon
        raise DataError(f"{path}: not a numpy file, a damaged one, or one of pickled objects: {error}") from error


def _numbers(array: Any, what: str) -> npt.NDArray[np.generic]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else "no array"
        raise DataError(f"{what}: is {kind}, not of real numbers or booleans")
    return array


def _pair_distances(embeddings: npt.ArrayLike, same: npt.ArrayLike) -> tuple[Floats, Bools]:
    """Return ``[P]`` squared distances between the unit embeddings of each pair, and ``same`` as booleans."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    same = np.asarray(same)
    if embeddings.ndim != 2 or same.ndim != 1 or len(embeddings) != 2 * len(same):
        raise DataError(
            f"embeddings of shape {embeddings.shape} and labels of shape {same.shape} do not fit: "
            "P pairs are embeddings [2P, D] and labels [P]"
        )
    if not np.isin(same, (0, 1)).all():
        raise DataError(f"labels are {np.unique(same)[:5].tolist()} …: must be true (genuine) or false (impostor)")
    same = same.astype(bool)
    if same.all() or not same.any():
        raise DataError(f"{np.sum(same)} of {len(same)} pairs are genuine: both genuine and impostor pairs are needed")

    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(embeddings)} embeddings are not finite or have no direction; "
            f"the first is row {bad[0]} (pair {bad[0] // 2}) with norm {norm[bad[0], 0]}"
        )
    unit = embeddings / norm
    return np.square(unit[0::2] - unit[1::2]).sum(axis=1), same


def _best_on_grid(distance: Floats, same: Bools, parts: list[npt.NDArray[np.int64]]) -> Floats:
    """Return ``[folds]``: for each fold, the first threshold of insightface's grid that is best on the others."""
    grid = np.arange(0, 4, 0.01)
    correct = np.stack([_correct_pairs(distance[part], same[part], grid) for part in parts])
    on_others = correct.sum(axis=0) - correct
    return grid[on_others.argmax(axis=1)]


def _best_between_distances(distance: Floats, same: Bools, parts: list[npt.NDArray[np.int64]]) -> Floats:
    """Return ``[folds]``: for each fold, the first threshold of all that is best on the others."""
    best = []
    for part in parts:
        others_distance, others_same = np.delete(distance, part), np.delete(same, part)
        edges = np.concatenate([[0.0], np.unique(others_distance), [4.0]])
        candidates = (edges[:-1] + edges[1:]) / 2
        best.append(candidates[_correct_pairs(others_distance, others_same, candidates).argmax()])
    return np.array(best)


def _correct_pairs(distance: Floats, same: Bools, thresholds: Floats) -> npt.NDArray[np.int64]:
    """Return ``[T]``: how many pairs are decided rightly when those with ``distance < threshold`` are accepted."""
    genuine, impostor = np.sort(distance[same]), np.sort(distance[~same])
    accepted_genuine = np.searchsorted(genuine, thresholds, side="left")
    accepted_impostor = np.searchsorted(impostor, thresholds, side="left")
    return accepted_genuine + len(impostor) - accepted_impostor
