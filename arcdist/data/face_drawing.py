"""A drawn face: the curves of a face, seen by a camera, aligned, painted and lit.

A pose is one rotation of all points at once. Then five landmarks are fitted to the ArcFace template as a detector's
would be, so a turned head or a smile leaves its mark on the crop, as it does on real ones.
"""

import math

import cv2
import numpy as np

from arcdist.data.face_curves import Face
from arcdist.data.face_traits import Person, Shot
from arcdist.data.template import TEMPLATE, TEMPLATE_SIZE_PX

SPARE_DRAWS = 49  # uniform numbers of a shot that have no name: see draw_face

_TEMPLATE = TEMPLATE @ [1, 1j]  # x + iy
_EYE_TO_CAMERA_PX = 320.0
_JITTER_PX = 2.0  # of a landmark, at most

_OVERSAMPLING = 2  # drawn larger and averaged: smooth edges, cheaper than drawing them smooth
_FRACTION_BITS = 4  # of cv2's fixed-point coordinates

_LEVELS = np.linspace(0.0, 1.0, 256)
_GRAIN = np.random.Generator(np.random.PCG64(20)).standard_normal((368, 368, 3)).astype(np.float32)


def draw_face(person: Person, shot: Shot, draws: np.ndarray, size: int) -> np.ndarray:
    """Return the image of a person in a shot, uint8 RGB ``[size, size, 3]``.

    Args:
        person: who.
        shot: in which circumstances.
        draws: ``SPARE_DRAWS`` numbers in [0, 1): 20 move the landmarks, 27 color the backdrop, 2 place the grain.
        size: px; from 16 to 224.
    """
    face = Face(person, shot)
    sketch = face.sketch()
    points = _project(np.concatenate((face.landmarks(), sketch.points())), shot, draws[:20])
    points = (points + (0.5 + 0.5j)) * (size / TEMPLATE_SIZE_PX * _OVERSAMPLING * (1 << _FRACTION_BITS))
    fixed = np.array((points.real, points.imag)).T.astype(np.int32) - (1 << _FRACTION_BITS >> 1)

    backdrop = draws[20:47].reshape(3, 3, 3)
    backdrop = (30.0 + 114.0 * backdrop[..., :1] + 76.0 * backdrop).astype(np.uint8)  # mostly gray
    canvas = cv2.resize(backdrop, (size * _OVERSAMPLING, size * _OVERSAMPLING))
    _paint(canvas, sketch.soft, fixed)
    canvas = cv2.blur(canvas, (5, 5), dst=canvas)
    _paint(canvas, sketch.crisp, fixed)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)

    relief = np.full((size // 2, size // 2), 128, np.uint8)
    _paint(relief, sketch.relief, fixed // (2 * _OVERSAMPLING))
    relief = cv2.resize(cv2.blur(cv2.blur(relief, (3, 3)), (3, 3)), (size, size))
    return _photograph(_light(image, relief, shot), shot, draws[47:49])


def _project(points: np.ndarray, shot: Shot, draws: np.ndarray) -> np.ndarray:
    """Return where points are in the aligned crop, px of the template, complex ``[n − 5]``.

    Args:
        points: ``[n, 3]``; the first five are the landmarks.
        shot: has the pose.
        draws: 20 numbers in [0, 1) for the landmarks' error.
    """
    cos_yaw, sin_yaw = math.cos(shot.yaw), math.sin(shot.yaw)
    cos_pitch, sin_pitch = math.cos(shot.pitch), math.sin(shot.pitch)
    turned = points @ np.array([
        [cos_yaw, sin_yaw * sin_pitch, -sin_yaw * cos_pitch],
        [0.0, cos_pitch, sin_pitch],
        [sin_yaw, -cos_yaw * sin_pitch, cos_yaw * cos_pitch],
    ])  # fmt: skip
    seen = (turned[:, 0] + 1j * turned[:, 1]) / (1.0 - turned[:, 2] / _EYE_TO_CAMERA_PX)
    error = draws.reshape(4, 5) - 0.5
    found = seen[:5] + _JITTER_PX * (error[0] + error[1] + 1j * (error[2] + error[3]))
    scale_and_roll, shift = _fit_to_template(found)
    return scale_and_roll * seen[5:] + shift


def _fit_to_template(points: np.ndarray) -> tuple[complex, complex]:
    """Return (a, b) of the similarity ``a·z + b`` that brings five points nearest to the template.

    Umeyama's for two dimensions: in complex numbers it is a plain least-squares fit.
    """
    center, target = points.mean(), _TEMPLATE.mean()
    centered = points - center
    a = np.vdot(centered, _TEMPLATE - target) / np.vdot(centered, centered).real
    return a, target - a * center


def _paint(canvas: np.ndarray, layer: list[tuple], fixed: np.ndarray) -> None:
    """Paint a layer of a sketch.

    Args:
        canvas: is painted on.
        layer: what to paint.
        fixed: every point of the sketch in fixed-point pixels of the canvas, int32 ``[n, 2]``.
    """
    scale = len(canvas) / TEMPLATE_SIZE_PX
    for color, width, start, copies, n in layer:
        curves = list(fixed[start : start + copies * n].reshape(copies, n, 2))
        value = color.tolist() if isinstance(color, np.ndarray) else color
        if width:
            cv2.polylines(canvas, curves, False, value, max(1, round(width * scale)), cv2.LINE_8, _FRACTION_BITS)
        else:
            cv2.fillPoly(canvas, curves, value, cv2.LINE_8, _FRACTION_BITS)


def _light(image: np.ndarray, relief: np.ndarray, shot: Shot) -> np.ndarray:
    """Return the image under a light that falls off to one side, and with the relief's lights and shades."""
    axis = np.linspace(-1.0, 1.0, len(image), dtype=np.float32)
    falloff = np.add.outer(np.float32(shot.light_y) * axis, np.float32(shot.light_x) * axis) + np.float32(1.0)
    gain = falloff * relief * np.float32(1.0 / 128.0)
    return cv2.multiply(image, cv2.merge((gain, gain, gain)), dtype=cv2.CV_8U)


def _photograph(image: np.ndarray, shot: Shot, draws: np.ndarray) -> np.ndarray:
    """Return what a camera makes of the light: its color balance, curve, resolution, focus and grain."""
    size = len(image)
    saturation = min(shot.saturation, 1.0)
    color = saturation * np.eye(3) + (1.0 - saturation) * np.array([0.30, 0.59, 0.11])
    balance = shot.gain * np.exp([[shot.warmth], [shot.tint], [-shot.warmth]])
    image = cv2.transform(image, np.hstack((balance * color, np.full((3, 1), shot.haze))).astype(np.float32))
    image = cv2.LUT(image, (255.0 * _LEVELS ** math.exp(shot.gamma)).astype(np.uint8))
    if shot.shrink > 1.0:
        small = round(size / shot.shrink)
        image = cv2.resize(cv2.resize(image, (small, small)), (size, size))
    if shot.blur > 0.3:
        image = cv2.GaussianBlur(image, (5, 5), shot.blur)
    row, column = (draws * (len(_GRAIN) - size)).astype(int)
    grain = _GRAIN[row : row + size, column : column + size]
    return cv2.addWeighted(image, 1.0, grain, shot.noise, 0.0, dtype=cv2.CV_8U)
