"""Damaged .rec, .idx and .bin files: each must be refused with a message, or be read with the right labels."""

import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from arcdist.data.decode import decode
from arcdist.data.evalsets import read_bin, write_bin
from arcdist.data.recordio import RecordReader
from arcdist.data.synthetic import SyntheticConfig, encode
from arcdist.data.training_set import TrainingSetWriter
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.inspect import inspect

_KINDS = (".rec", ".idx", ".bin")
_IDENTITIES, _IMAGES_EACH = 4, 3


@dataclass
class FuzzConfig:
    """How many files are damaged."""

    files: int = field(default=10_000, metadata={"help": "damaged files; a third of each kind"})
    seed: int = field(default=0, metadata={"help": "of the damage; file n is the same for any number of files"})
    json: str = field(default="", metadata={"help": "file for the result"})
    progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def validate(self) -> None:
        """Raise ``ConfigError`` for a number of files below 1."""
        if self.files < 1:
            raise ConfigError(f"files: {self.files}: must be at least 1")


def fuzz(config: FuzzConfig) -> dict[str, Any]:
    """Return how ``arcdist inspect --verify`` took every damaged file, ready for JSON.

    ``outcomes`` of each kind of file: ``refused`` (with a message), ``faults named`` (each record that is not right),
    ``read as before``, ``other images`` (damage within an image that still decodes, for which the formats have no
    checksum), ``other label`` (an image that is read with a label that is not its own, and no word of it) and
    ``crash``. ``silent`` and ``crashes`` describe each file of the latter two; ``slowest_s`` is of one file.
    """
    config.validate()
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in _KINDS}
    silent: list[str] = []
    crashes: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole, truth = _whole_files(folder)
        numbers = track(
            range(config.files), "damaging", console=Console(stderr=True), transient=True, disable=not config.progress
        )
        for number in numbers:
            kind = _KINDS[number % len(_KINDS)]
            rng = np.random.default_rng((config.seed, number))
            damaged, how = _damage(whole[kind], rng)
            (folder / f"set{kind}").write_bytes(damaged)
            began = time.monotonic()
            try:
                outcome = _outcome(folder / ("set.bin" if kind == ".bin" else "set.rec"), truth)
            except Exception as error:  # a defect, which is what is looked for here
                outcome = "crash"
                crashes.append(f"file {number} ({kind}, {how}): {type(error).__name__}: {error}")
            slowest = max(slowest, time.monotonic() - began)
            if outcome == "other label":
                silent.append(f"file {number} ({kind}, {how})")
            outcomes[kind][outcome] += 1
            (folder / f"set{kind}").write_bytes(whole[kind])
    return {
        "files": config.files,
        "seed": config.seed,
        "outcomes": {kind: dict(counts.most_common()) for kind, counts in outcomes.items()},
        "crashes": crashes,
        "silent": silent,
        "slowest_s": round(slowest, 3),
    }


def _whole_files(folder: Path) -> tuple[dict[str, bytes], dict[bytes, set[int]]]:
    """Write the set that is damaged; return its files, and the labels of every image."""
    rendered = SyntheticConfig(identities=_IDENTITIES, images_per_identity=_IMAGES_EACH, image_size=32)
    images = [encode(rendered, label, number) for label in range(_IDENTITIES) for number in range(_IMAGES_EACH)]
    with TrainingSetWriter(folder / "set.rec", rendered.image_size) as writer:
        for position, image in enumerate(images):
            writer.write(position // _IMAGES_EACH, image)
    truth = {image: {position // _IMAGES_EACH} for position, image in enumerate(images)}
    pairs = [images[position] for pair in range(_IDENTITIES) for position in (3 * pair, 3 * pair + pair % 2)]
    pairs += [image for label in range(_IDENTITIES) for image in (images[3 * label], images[(3 * label + 4) % 12])]
    same = [truth[first] == truth[second] for first, second in zip(pairs[::2], pairs[1::2])]
    write_bin(folder / "set.bin", pairs, same)
    return {kind: (folder / f"set{kind}").read_bytes() for kind in _KINDS}, truth


def _damage(whole: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return the bytes with one kind of damage, and its words."""
    data = bytearray(whole)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    how = ("bits", "cut", "zeros", "noise", "removed", "repeated", "exchanged")[rng.integers(7)]
    if how == "bits":
        for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
            data[bit // 8] ^= 1 << bit % 8
    elif how == "cut":
        del data[at:]
    elif how == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif how == "noise":
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif how == "removed":
        del data[at : at + length]
    elif how == "repeated":
        data[at:at] = data[at : at + length]
    else:
        other = int(rng.integers(len(data)))
        a, b = sorted((at, other))
        length = min(length, b - a, len(data) - b)
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    return bytes(data), f"{how} at byte {at}"


def _outcome(path: Path, truth: dict[bytes, set[int]]) -> str:
    try:
        if inspect(path, verify=True, workers=1)["faults"]:
            return "faults named"
        return _read_bin(path, truth) if path.suffix == ".bin" else _read_rec(path, truth)
    except DataError as error:
        return "refused" if str(error) else "crash"


def _read_rec(path: Path, truth: dict[bytes, set[int]]) -> str:
    with RecordReader(path) as reader:
        images = [record for record in reader if record.payload]
    return _compare([(record.payload, {int(record.first_label)}) for record in images], truth, len(truth))


def _read_bin(path: Path, truth: dict[bytes, set[int]]) -> str:
    pairs = read_bin(path)
    for first, second, same in zip(pairs.images[::2], pairs.images[1::2], pairs.same):
        if first in truth and second in truth and (truth[first] == truth[second]) != same:
            return "other label"
    return _compare([(image, truth.get(image, set())) for image in pairs.images], truth, len(pairs.images))


def _compare(found: list[tuple[bytes, set[int]]], truth: dict[bytes, set[int]], expected: int) -> str:
    for image, labels in found:
        if image in truth and truth[image] != labels:
            return "other label"
    for image, _ in found:
        decode(image, "image")
    return "read as before" if all(image in truth for image, _ in found) and len(found) == expected else "other images"
