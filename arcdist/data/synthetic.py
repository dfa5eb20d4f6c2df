"""Rendered identities: any number of drawn people, any number of images of each, from a seed and without a download.

A person is a function of (seed, identity), a shot of (seed, identity, image): the same bytes in whichever process and
order they are asked for. What differs between two images of a person moves the pixels more than what differs between
two people, so neither pixels nor colors give an identity away; its shapes do.

Some impostor pairs of a verification set stand in one light, genuine pairs do not, much as CPLFW pairs impostors of one
gender and race: a net that has learned nothing finds these alike, and is at chance.
"""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from arcdist.data.datasets import MAX_CLASSES
from arcdist.data.evalsets import write_bin
from arcdist.data.face_drawing import SPARE_DRAWS, draw_face
from arcdist.data.face_traits import LIGHT, Person, Shot, trait_count, traits
from arcdist.data.training_set import TrainingSetWriter
from arcdist.errors import ConfigError, DataError
from arcdist.runtime.cores import usable_cores
from arcdist.runtime.progress import track
from arcdist.runtime.seeds import mix, uniform

_FOLDS = 10
_Which = tuple[int, int] | tuple[int, int, tuple[int, int]]  # what ``encode`` takes
_ONE_LIGHT_EVERY = 3  # impostor pairs: this balances what an untrained net sees of a face's shape


@dataclass
class SyntheticConfig:
    """Which people are drawn, and how often."""

    identities: int = field(default=1000, metadata={"help": "number of people in the training set"})
    images_per_identity: int = field(default=20, metadata={"help": "images of each"})
    seed: int = field(default=0, metadata={"help": "another seed is another set of people"})
    first_identity: int = field(default=0, metadata={"help": "number of the first person; two sets may share a seed"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key, low in (("identities", 1), ("images_per_identity", 1), ("first_identity", 0)):
            if getattr(self, key) < low:
                raise ConfigError(f"{key}: {getattr(self, key)}: must be at least {low}")
        if self.identities > MAX_CLASSES:
            raise ConfigError(
                f"identities: {self.identities}: the float32 labels of a .rec can tell at most {MAX_CLASSES} apart"
            )
        if not 16 <= self.image_size <= 224:
            raise ConfigError(f"image_size: {self.image_size}: must be from 16 to 224")


def render(config: SyntheticConfig, identity: int, image: int) -> np.ndarray:
    """Return an image of a person, uint8 RGB ``[image_size, image_size, 3]``.

    Args:
        config: has the seed and the size.
        identity: counts from ``config.first_identity``; neither it nor ``image`` has an upper bound.
        image: number among the images of this identity.
    """
    return _draw(config, identity, image)[0]


def encode(config: SyntheticConfig, identity: int, image: int, light_of: "tuple[int, int] | None" = None) -> bytes:
    """Return ``render``'s image as a JPEG, of a quality that is the shot's.

    Args:
        config: has the seed and the size.
        identity: see ``render``.
        image: see ``render``.
        light_of: another (identity, image) whose light this one is taken in.
    """
    pixels, quality = _draw(config, identity, image, light_of)
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")


def write_record(config: SyntheticConfig, path: "str | os.PathLike[str]", workers: "int | None" = None) -> None:
    """Write the training set in insightface's layout: .rec, .idx, their ``property``, and the settings beside them.

    Args:
        config: says what is drawn.
        path: of the .rec.
        workers: processes that draw; one a core unless given, and 1 draws in this one. The files do not depend on it.

    Raises:
        ConfigError: see ``SyntheticConfig.validate``.
        DataError: a folder that cannot be written.
    """
    config.validate()
    path = Path(path)
    _make_folder_of(path)
    classes, each = config.identities, config.images_per_identity
    images = ((identity, image) for identity in range(classes) for image in range(each))
    with TrainingSetWriter(path, config.image_size) as writer:
        for number, payload in enumerate(_encode_all(config, images, classes * each, workers)):
            writer.write(number // each, payload)
    _write_settings(path, settings(config))


def write_pairs(
    config: SyntheticConfig, path: "str | os.PathLike[str]", pairs: int, workers: "int | None" = None
) -> None:
    """Write a verification ``.bin`` of the people who come after ``config``'s, so none is in its training set.

    Ten folds, each half genuine pairs, then half impostor pairs. No person is in two folds, no image in two pairs.
    Every third impostor pair is taken in one light. The settings lie beside it, as ``write_record`` leaves them.

    Args:
        config: of the training set.
        path: of the .bin.
        pairs: a multiple of 20.
        workers: see ``write_record``.

    Raises:
        ConfigError: see ``SyntheticConfig.validate``; another number of pairs.
        DataError: a folder that cannot be written.
    """
    config.validate()
    check_pairs(pairs)
    path = Path(path)
    _make_folder_of(path)
    genuine = pairs // (2 * _FOLDS)
    people = max(genuine, 2)
    images: list[_Which] = []
    for fold in range(_FOLDS):
        first = config.identities + fold * people
        for k in range(genuine):
            images += [(first + k, 0), (first + k, 1)]
        for k in range(genuine):
            one, other = (first + k, 2), (first + (k + 1) % people, 3)
            images += [one, other if k % _ONE_LIGHT_EVERY else (*other, one)]
    same = ([True] * genuine + [False] * genuine) * _FOLDS
    write_bin(path, list(_encode_all(config, images, len(images), workers)), same)
    _write_settings(path, settings(config, pairs))


def check_pairs(pairs: int, key: str = "pairs") -> None:
    """Raise ConfigError for a number of pairs that ten folds, half of each genuine, cannot have."""
    if pairs < 2 * _FOLDS or pairs % (2 * _FOLDS):
        raise ConfigError(f"{key}: {pairs}: must be a multiple of {2 * _FOLDS}: {_FOLDS} folds, half genuine")


def settings(config: SyntheticConfig, pairs: "int | None" = None) -> dict[str, int]:
    """Return all that the bytes of a training set depend on, or with ``pairs`` those of a verification set."""
    values = {one.name: getattr(config, one.name) for one in fields(SyntheticConfig)}
    if pairs is not None:
        del values["images_per_identity"]
        values |= {"pairs": pairs, "one_light_every": _ONE_LIGHT_EVERY}
    return values


def read_settings(path: "str | os.PathLike[str]") -> "dict[str, int] | None":
    """Return the settings that lie beside a rendered file, None where there are none.

    Raises:
        DataError: they cannot be read.
    """
    beside = _settings_path(Path(path))
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{beside}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{beside}: holds no settings")
    return values


def _write_settings(path: Path, values: dict[str, int]) -> None:
    beside = _settings_path(path)
    try:
        beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{beside}: cannot be written: {error.strerror}") from None


def _settings_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.rendered.json")  # the whole name: a .rec and a .bin may share the stem


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _draw(
    config: SyntheticConfig, identity: int, image: int, light_of: "tuple[int, int] | None" = None
) -> tuple[np.ndarray, int]:
    """Return pixels and JPEG quality."""
    shot, spare = _shot(config, identity, image)
    if light_of:
        light, _ = _shot(config, *light_of)
        shot = replace(shot, **{name: getattr(light, name) for name in LIGHT})
    person = _person(config.seed, identity + config.first_identity)
    return draw_face(person, shot, spare, config.image_size), round(shot.quality)


def _shot(config: SyntheticConfig, identity: int, image: int) -> tuple[Shot, np.ndarray]:
    """Return the circumstances of an image, and the ``SPARE_DRAWS`` that have no name."""
    named = trait_count(Shot)
    where = mix(config.seed, identity + config.first_identity, image)
    draws = uniform(where, "synthetic shot", np.arange(named + SPARE_DRAWS))
    return traits(Shot, draws[:named]), draws[named:]


@lru_cache(maxsize=64)
def _person(seed: int, identity: int) -> Person:
    return traits(Person, uniform(mix(seed, identity), "synthetic person", np.arange(trait_count(Person))))


def _encode(config: SyntheticConfig, which: _Which) -> bytes:
    return encode(config, *which)


def _encode_all(
    config: SyntheticConfig, images: Iterable[_Which], count: int, workers: "int | None"
) -> Iterator[bytes]:
    """Yield the JPEG of each image, in order, with a progress bar."""
    workers = workers or usable_cores()
    encode_one = partial(_encode, config)
    with contextlib.ExitStack() as stack:
        if workers == 1:
            encoded = map(encode_one, images)
        else:
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,))
            encoded = stack.enter_context(pool).map(encode_one, images, chunksize=64)
        yield from track(encoded, "drawing faces", count)
