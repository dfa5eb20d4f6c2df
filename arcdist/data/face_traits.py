"""What makes a drawn face: the traits of a person, which stay, and the circumstances of a shot, which do not."""

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", "Person", "Shot")


def _between(low: float, high: float) -> Any:
    return field(metadata={"between": (low, high)})


@dataclass(frozen=True)
class Person:
    """What stays: lengths in px of the template, shares of 1, angles in rad; each is uniform in its bounds."""

    face_width: float = _between(39.0, 48.0)
    forehead: float = _between(0.84, 1.04)
    chin: float = _between(54.0, 68.0)
    jaw: float = _between(0.42, 1.0)  # exponent of the superellipse: square to pointed
    cheek_hollow: float = _between(-2.0, 4.0)
    eye_spacing: float = _between(15.0, 20.5)
    eye_width: float = _between(6.0, 9.6)
    eye_open: float = _between(2.8, 5.8)
    eye_lower: float = _between(0.3, 0.75)
    eye_skew: float = _between(-0.45, 0.45)
    eye_tilt: float = _between(-0.18, 0.26)
    eye_height: float = _between(-2.5, 2.5)
    iris: float = _between(2.9, 4.5)
    iris_tone: float = _between(0.0, 1.0)
    crease: float = _between(0.8, 4.0)
    eye_bag: float = _between(0.0, 1.0)
    brow_height: float = _between(8.0, 14.0)
    brow_thickness: float = _between(1.0, 4.4)
    brow_arch: float = _between(-0.5, 4.5)
    brow_tilt: float = _between(-0.22, 0.22)
    brow_length: float = _between(7.0, 12.5)
    brow_offset: float = _between(-2.5, 2.5)
    nose_length: float = _between(15.0, 25.5)
    nose_width: float = _between(4.8, 11.0)
    nose_bridge: float = _between(1.6, 4.2)
    nose_tip: float = _between(-2.0, 2.4)
    nose_depth: float = _between(9.0, 18.0)
    mouth_height: float = _between(35.0, 46.0)
    mouth_width: float = _between(9.5, 17.5)
    upper_lip: float = _between(1.2, 4.6)
    lower_lip: float = _between(1.8, 6.2)
    cupid: float = _between(0.0, 1.8)
    mouth_curve: float = _between(-2.0, 2.0)
    lip_tone: float = _between(0.0, 1.0)
    ear_size: float = _between(7.0, 13.0)
    ear_height: float = _between(2.0, 12.0)
    ear_out: float = _between(-1.0, 4.0)
    skin_tone: float = _between(0.4, 0.6)
    blush: float = _between(0.0, 1.0)
    freckles: float = _between(0.0, 1.0)
    mole_x: float = _between(-30.0, 30.0)
    mole_y: float = _between(10.0, 48.0)
    folds: float = _between(0.0, 1.0)
    hair_tone: float = _between(0.3, 0.7)
    hairline: float = _between(-38.0, -22.0)
    hair_peak: float = _between(-5.0, 5.0)
    temple: float = _between(0.0, 1.0)
    parting: float = _between(-0.9, 0.9)
    fringe: float = _between(0.0, 1.0)
    hair_volume: float = _between(2.0, 12.0)
    hair_length: float = _between(0.0, 1.0)
    curl: float = _between(0.0, 1.0)
    beard: float = _between(0.0, 1.0)


@dataclass(frozen=True)
class Shot:
    """What changes from image to image; a chance is compared with a threshold where it is used."""

    yaw: float = _between(-0.48, 0.48)
    pitch: float = _between(-0.26, 0.26)
    smile: float = _between(-0.6, 1.0)
    mouth_open: float = _between(-4.5, 6.0)  # px; closed below 0
    brow_raise: float = _between(-1.8, 2.4)
    frown: float = _between(-1.0, 1.0)
    eyelids: float = _between(-0.15, 0.5)
    blink: float = _between(0.0, 1.0)
    gaze_x: float = _between(-2.0, 2.0)
    gaze_y: float = _between(-0.8, 0.8)
    light_x: float = _between(-0.75, 0.75)
    light_y: float = _between(-0.55, 0.45)
    gain: float = _between(0.45, 1.4)
    gamma: float = _between(-0.45, 0.45)  # its logarithm
    warmth: float = _between(-0.22, 0.22)
    tint: float = _between(-0.08, 0.08)
    saturation: float = _between(0.3, 1.4)  # full from 1 on
    haze: float = _between(-20.0, 40.0)
    skin_shift: float = _between(-0.5, 0.5)
    hair_shift: float = _between(-0.6, 0.6)
    hair_lift: float = _between(-5.0, 5.0)
    hair_move: float = _between(-0.35, 0.35)
    hair_grow: float = _between(-0.4, 0.4)
    unshaven: float = _between(-0.7, 0.5)
    lipstick: float = _between(0.0, 1.0)
    lip_hue: float = _between(0.0, 1.0)
    eye_shadow: float = _between(0.0, 1.0)
    glasses: float = _between(0.0, 1.0)
    glasses_shape: float = _between(0.0, 1.0)
    hat: float = _between(0.0, 1.0)
    cloth: float = _between(0.0, 1.0)
    cover: float = _between(0.0, 1.0)
    cover_place: float = _between(0.0, 1.0)
    cover_turn: float = _between(0.0, math.pi)
    blur: float = _between(-0.6, 1.1)  # px; none below 0.3
    noise: float = _between(0.0, 8.0)
    shrink: float = _between(0.6, 2.0)  # none below 1
    quality: float = _between(45.0, 95.0)


LIGHT = ("light_x", "light_y", "gain", "gamma", "warmth", "tint", "saturation", "haze")  # the traits of a shot's light


@lru_cache
def _bounds(kind: "type[Person] | type[Shot]") -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array([f.metadata["between"] for f in fields(kind)]).T
    return low, high - low


def traits(kind: type[T], share: np.ndarray) -> T:
    """Return a ``kind`` whose fields lie at ``share`` of the way between their bounds.

    Args:
        kind: ``Person`` or ``Shot``.
        share: numbers in [0, 1), ``trait_count(kind)`` of them.
    """
    low, span = _bounds(kind)
    return kind(*(low + span * share).tolist())


def trait_count(kind: "type[Person] | type[Shot]") -> int:
    """Return how many traits a ``kind`` has."""
    return len(_bounds(kind)[0])
