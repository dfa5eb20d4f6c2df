"""What is suspicious of a set as files: a clean list, a list of identities that are one, sheets to look at."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from arcdist.data.datasets import RecordDataset
from arcdist.errors import DataError
from arcdist.prepare.sheet import GREEN, RED, captioned_rows, tile
from arcdist.prepare.suspicions import Suspicions

_ROWS_SHOWN = 24
_BESIDE = 3
"""Images of an identity beside a suspicious one."""


def write_cleaning(dataset: RecordDataset, found: Suspicions, folder: Path) -> dict[str, Any]:
    """Write ``clean.txt``, ``same.txt``, ``noise.png`` and ``same.png``; return all that is suspicious, ready for JSON.

    ``clean.txt`` is what ``data.select.clean_list`` and ``arcdist pack clean_list=`` read: the keys of all records but
    the noise, with the cosine to the other images of the identity; the noise stands there behind ``#``. ``same.txt`` is
    what ``arcdist pack same=`` reads: two labels and their cosine a line. A sheet is there where it has something to
    show, the most suspicious first, at most 24 rows.

    Errors: DataError for a folder that cannot be written.
    """
    labels = dataset.labels()
    counts = np.bincount(labels)
    noise = np.flatnonzero(found.noise)
    noise = noise[np.argsort(found.own[noise] - np.where(found.elsewhere[noise], found.other[noise], 0), kind="stable")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "clean.txt", _clean_lines(dataset, labels, found))
        _write(folder / "same.txt", _same_lines(labels, found))
        _draw(folder / "noise.png", [_noise_row(dataset, labels, found, int(i)) for i in noise[:_ROWS_SHOWN]])
        rows = zip(found.same[:_ROWS_SHOWN].tolist(), found.same_cosine.tolist())
        _draw(folder / "same.png", [_same_row(dataset, labels, found, pair, cosine) for pair, cosine in rows])
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    return {
        "images": len(dataset),
        "identities": int((counts > 0).sum()),
        "judged": int((~np.isnan(found.own)).sum()),
        "thresholds": {key: _number(getattr(found, key)) for key in ("genuine", "far", "near")},
        "elsewhere": int(found.elsewhere.sum()),
        "stranger": int(found.stranger.sum()),
        "noise": [
            {
                "record": dataset.key(i),
                "label": int(labels[i]),
                "own": _number(found.own[i]),
                "nearest_label": int(found.other_label[i]),
                "nearest": _number(found.other[i]),
                "why": "elsewhere" if found.elsewhere[i] else "stranger",
            }
            for i in noise.tolist()
        ],
        "same": [
            {"labels": pair, "cosine": _number(cosine), "images": counts[pair].tolist()}
            for pair, cosine in zip(found.same.tolist(), found.same_cosine)
        ],
    }


def _number(cosine: float) -> float | None:
    return None if np.isnan(cosine) else round(float(cosine), 4)


def _clean_lines(dataset: RecordDataset, labels: np.ndarray, found: Suspicions) -> Iterable[str]:
    yield f"# records of {dataset.path.name} that are kept: key, cosine to the other images of the identity"
    yield f"# behind #: label likely wrong (own cosine under {found.far:.2f}, or nearer to another identity)"
    for sample, (own, noise) in enumerate(zip(found.own.tolist(), found.noise.tolist())):
        line = f"{dataset.key(sample)}\t{own:.3f}"
        if noise:
            line = f"# {line}\tlabel {labels[sample]}, {found.other[sample]:.3f} to label {found.other_label[sample]}"
        yield line


def _same_lines(labels: np.ndarray, found: Suspicions) -> Iterable[str]:
    yield "# identities that are likely one person: two labels, the mean cosine between their images"
    for (first, second), cosine in zip(found.same.tolist(), found.same_cosine.tolist()):
        yield f"{first}\t{second}\t{cosine:.3f}"


def _write(path: Path, lines: Iterable[str]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(aside, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _draw(path: Path, rows: list[tuple[list[str], list[np.ndarray]]]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    path.write_bytes(cv2.imencode(path.suffix, captioned_rows(rows)[:, :, ::-1])[1].tobytes())


def _noise_row(
    dataset: RecordDataset, labels: np.ndarray, found: Suspicions, sample: int
) -> tuple[list[str], list[np.ndarray]]:
    own, other = int(labels[sample]), int(found.other_label[sample])
    words = [
        f"record {dataset.key(sample)}",
        f"its label {own}: {found.own[sample]:.2f}",
        f"green {other}: {found.other[sample]:.2f}",
        "elsewhere" if found.elsewhere[sample] else "stranger",
    ]
    blank = [np.full_like(_tile(dataset, sample), 255)]
    mates = [mate for mate in _best(labels, found, own, _BESIDE + 1) if mate != sample][:_BESIDE]
    others = _best(labels, found, other, _BESIDE)
    tiles = [_tile(dataset, sample, RED), *(_tile(dataset, mate) for mate in mates)]
    tiles += blank * (_BESIDE - len(mates))
    return words, tiles + [_tile(dataset, one, GREEN) for one in others]


def _same_row(
    dataset: RecordDataset, labels: np.ndarray, found: Suspicions, pair: list[int], cosine: float
) -> tuple[list[str], list[np.ndarray]]:
    first, second = (_best(labels, found, label, _BESIDE) for label in pair)
    counts = [int((labels == label).sum()) for label in pair]
    words = [f"cosine {cosine:.2f}", *(f"{label}: {count} images" for label, count in zip(pair, counts))]
    tiles = [_tile(dataset, sample) for sample in first]
    blank = [np.full_like(tiles[0], 255)] * (_BESIDE - len(tiles))
    return words, [*tiles, *blank, *(_tile(dataset, sample, GREEN) for sample in second)]


def _best(labels: np.ndarray, found: Suspicions, label: int, count: int) -> list[int]:
    """Return the samples of a label that fit it best, without noise where there is anything else."""
    samples = np.flatnonzero(labels == label)
    fit = np.nan_to_num(found.own[samples]) - 2 * found.noise[samples]
    samples = samples[np.argsort(-fit, kind="stable")]
    good = samples[~found.noise[samples]]
    return (good if len(good) else samples)[:count].tolist()


def _tile(dataset: RecordDataset, sample: int, frame: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    return tile(dataset.read(sample)[1], dataset.name(sample), frame)
