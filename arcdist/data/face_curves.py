"""A face as curves: a person's traits and one shot's circumstances in, colored polygons and lines in space out.

All are in the person's own frame: px of the 112 × 112 template, x to the image's right, y down, z towards the viewer,
the origin between the eyes. The right half is drawn and mirrored.
"""

import math

import numpy as np

from arcdist.data.face_sketch import Sketch, depth
from arcdist.data.face_traits import Person, Shot

_SKIN = np.array([[248, 218, 194], [238, 194, 160], [220, 168, 128], [176, 122, 86], [124, 82, 58]], float)
_HAIR = np.array([[30, 26, 28], [62, 42, 32], [104, 70, 44], [150, 106, 60], [204, 168, 108]], float)
_IRIS = np.array([[58, 36, 24], [96, 62, 32], [92, 104, 62], [78, 116, 150]], float)
_CLOTH = np.array([[60, 64, 84], [150, 60, 60], [210, 206, 200], [70, 110, 90], [200, 160, 70], [130, 170, 200]], float)
_LIPSTICK = np.array([[176, 36, 56], [206, 84, 100], [150, 50, 90], [214, 110, 90]], float)
_BLOOD = np.array([200.0, 78.0, 80.0])
_WHITE = np.array([236.0, 230.0, 224.0])
_DARK = np.array([34.0, 26.0, 26.0])
_SHADOW = np.array([0.74, 0.64, 0.60])  # skin in the shade keeps more red than blue

_U = np.linspace(-1.0, 1.0, 15)
_DOME = 1.0 - _U**2
_PEAK = np.exp(-((_U / 0.22) ** 2))
_TURN = np.linspace(0.0, 2.0 * math.pi, 20, endpoint=False)
_COS, _SIN = np.cos(_TURN), np.sin(_TURN)
_QUARTER_COS, _QUARTER_SIN = np.cos(np.linspace(0.0, math.pi / 2, 9)), np.sin(np.linspace(0.0, math.pi / 2, 9))
_WING_X, _WING_Y = 3.0 * np.cos(np.linspace(-1.2, 1.7, 9)), 3.4 * np.sin(np.linspace(-1.2, 1.7, 9))
_SIDES = np.array([[-1.0], [1.0]])
_FRECKLES = np.array([[9.0 + 3.0 * k - 0.6 * (k % 3), 17.0 + 3.0 * math.sin(2.4 * k)] for k in range(9)])
_IRIS_RINGS = np.array([1.0, 0.8, 0.42])[:, None, None]
_STRANDS = np.linspace(0.0, 13.0, 30)


class Face:
    """One person in one shot."""

    def __init__(self, person: Person, shot: Shot) -> None:
        self.person, self.shot = person, shot
        self.skin = _tone(_SKIN, person.skin_tone + shot.skin_shift)
        self.shade = self.skin * _SHADOW
        self.hair = _tone(_HAIR, person.hair_tone + shot.hair_shift)
        self.cloth = _tone(_CLOTH, shot.cloth)
        self.made_up = person.beard < 0.5
        self.opening = max(shot.mouth_open, 0.0)
        self.half_mouth = person.mouth_width * (1.0 + 0.14 * shot.smile)
        self.corner_lift = person.mouth_curve + 2.6 * shot.smile
        self.hair_length = person.hair_length + shot.hair_grow
        self.outline_x, self.outline_y = self._outline()

    def landmarks(self) -> np.ndarray:
        """Return the template's five points on this face, ``[5, 3]``."""
        p = self.person
        x = np.array([-p.eye_spacing, p.eye_spacing, 0.0, -self.half_mouth, self.half_mouth])
        corner = p.mouth_height - self.corner_lift
        y = np.array([p.eye_height, p.eye_height, p.nose_length, corner, corner])
        z = depth(x, y)
        z[2] = p.nose_depth
        return np.array((x, y, z)).T

    def sketch(self) -> Sketch:
        """Return all curves, back to front."""
        sketch = Sketch()
        self._hair_behind(sketch)
        self._head(sketch)
        self._relief(sketch)
        self._mouth(sketch)
        self._nose(sketch)
        self._marks(sketch)
        self._eyes(sketch)
        self._brows(sketch)
        if self.hair_length > 0.05:
            self._hair_in_front(sketch)
        self._worn(sketch)
        self._cover(sketch)
        return sketch

    def _outline(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the right half of the head's outline, crown to chin, ``[17]`` each; row 8 is beside the eye."""
        p = self.person
        cos, sin = _QUARTER_COS, _QUARTER_SIN
        upper = p.face_width * (1.0 - (1.0 - p.forehead) * sin) * cos**0.75
        lower = p.face_width * cos**p.jaw - p.cheek_hollow * (2.0 * sin * cos) ** 2
        y = np.concatenate((-60.0 * sin[:0:-1], (p.chin + 0.6 * self.opening) * sin))
        return np.concatenate((upper[:0:-1], lower)), y

    def _hair_behind(self, s: Sketch) -> None:
        p = self.person
        x, y, volume = self.outline_x, self.outline_y, p.hair_volume
        if self.hair_length > 0.55:
            drop = 20.0 + 110.0 * (self.hair_length - 0.55)
            x = np.append(x[:9] * (1.0 + volume / 42.0), p.face_width + volume * np.array([1.0, 1.1, 0.3]))
            y = np.append(y[:9] - volume, [0.5 * drop, drop, drop + 8.0])
        else:
            x = x[:11] * (1.0 + volume / 42.0)
            y = y[:11] - volume * np.linspace(1.0, 0.0, 11)
        s.add(s.soft, self.hair * 0.68, *_both_halves(x, y), lift=-6.0)

    def _head(self, s: Sketch) -> None:
        p, x, y = self.person, self.outline_x, self.outline_y
        neck = np.array([24.0, 25.0, 30.0]), np.array([40.0, 74.0, 95.0])
        s.add(s.soft, self.shade * 0.92, *_both_halves(*neck), lift=-14.0)
        ear_x = p.face_width + p.ear_out
        ear = _mix(self.skin, self.shade, 0.35)
        s.add(s.soft, ear, ear_x + 5.0 * _COS, p.ear_height + p.ear_size * _SIN, mirror=True)
        s.add(s.soft, self.shade, ear_x + 0.5 + 2.4 * _COS, p.ear_height + 0.6 * p.ear_size * _SIN, mirror=True)
        s.add(s.soft, self.skin, *_both_halves(x, y))
        flush = _mix(self.skin, _BLOOD, 0.04 + 0.16 * p.blush)
        s.add(s.soft, flush, 24.0 + 8.0 * _COS, 24.0 + 6.0 * _SIN, mirror=True)
        growth = p.beard + self.shot.unshaven - 0.5
        if growth > 0.0:
            lip_y = p.nose_length + 3.5
            jaw_x, jaw_y = _both_halves(x[9:], y[9:])
            edge_x = 0.97 * p.face_width * _U
            for inset, share in ((0.0, 0.3), (2.0, 0.6), (4.0, 1.0)):
                edge_y = lip_y + 0.4 * inset + (6.0 + 2.0 * inset - lip_y) * _U**4
                stubble = _mix(self.skin, 0.7 * self.hair, share * min(0.2 + 1.4 * growth, 0.8))
                s.add(s.soft, stubble, np.concatenate((jaw_x, edge_x)), np.concatenate((jaw_y, edge_y)))

    def _relief(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        s.add(s.relief, 96, self.outline_x[8:], self.outline_y[8:], mirror=True, width=5.0)
        s.add(s.relief, 142, 15.0 * _COS, 9.0 * _SIN - 26.0)
        s.add(s.relief, 142, 25.0 + 7.0 * _COS, 16.0 + 5.0 * _SIN, mirror=True)
        s.add(s.relief, 106, p.eye_spacing + 10.0 * _COS, p.eye_height - 3.0 + 7.5 * _SIN, mirror=True)
        flank_x = np.array([p.nose_bridge, p.nose_bridge + 4.5, p.nose_width + 2.5, 0.7 * p.nose_width])
        flank_y = np.array([-6.0, -4.0, p.nose_length + 1.0, p.nose_length])
        for side in (-1.0, 1.0):
            s.add(s.relief, 116.0 - 60.0 * side * shot.light_x, side * flank_x, flank_y, lift=4.0)
        bridge_x = np.array([-0.5, 0.5, 0.75, -0.75]) * p.nose_bridge
        bridge_y = np.array([-6.0, -6.0, p.nose_length - 3.0, p.nose_length - 3.0])
        s.add(s.relief, 154, bridge_x, bridge_y, lift=0.6 * p.nose_depth)
        s.add(s.relief, 158, 3.0 * _COS, p.nose_length - 2.0 + 2.6 * _SIN, lift=p.nose_depth)
        s.add(s.relief, 94, 0.9 * p.nose_width * _COS, p.nose_length + 4.5 + 2.2 * _SIN, lift=3.0)
        below = p.mouth_height + p.lower_lip + self.opening + 3.5
        s.add(s.relief, 100, 7.0 * _COS, below + 1.8 * _SIN)
        fold_x = np.array([p.nose_width + 3.0, self.half_mouth + 3.5, self.half_mouth + 4.5])
        fold_y = np.array([p.nose_length - 1.0, 0.5 * (p.nose_length + p.mouth_height), p.mouth_height + 1.0])
        s.add(s.relief, 120.0 - 34.0 * p.folds - 10.0 * max(shot.smile, 0.0), fold_x, fold_y, mirror=True, width=2.0)
        bag_x, bag_y = p.eye_spacing + 7.0 * _U, p.eye_height + 5.0 + 2.0 * _DOME
        s.add(s.relief, 124.0 - 30.0 * p.eye_bag, bag_x, bag_y, mirror=True, width=1.5)

    def _mouth(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        lips = _mix(self.shade, _BLOOD, 0.25 + 0.3 * p.lip_tone)
        if shot.lipstick < 0.25 and self.made_up:
            lips = _mix(lips, _tone(_LIPSTICK, shot.lip_hue), 0.75)
        x = self.half_mouth * _U
        line = p.mouth_height - self.corner_lift * _U**2 - 0.4 * self.opening * _DOME
        top = line - p.upper_lip * _DOME**0.8 + p.cupid * _PEAK
        inner = line + 1.4 * self.opening * _DOME
        bottom = inner + p.lower_lip * _DOME**0.75
        s.add(s.crisp, lips * 0.86, *_between_curves(x, top, line), lift=2.0)
        s.add(s.crisp, lips, *_between_curves(x, inner, bottom), lift=2.0)
        shine = _mix(lips, _WHITE, 0.16)
        s.add(s.crisp, shine, 0.4 * x, inner + 0.5 * p.lower_lip, lift=2.0, width=1.0)
        if self.opening > 0.8:
            s.add(s.crisp, np.array([70.0, 26.0, 30.0]), *_between_curves(x, line, inner), lift=2.0)
            teeth = line + min(0.55 * self.opening, 2.8) * _DOME
            s.add(s.crisp, _WHITE, *_between_curves(x, line, teeth), lift=2.0)
        else:
            s.add(s.crisp, lips * 0.48, x, line, lift=2.0, width=0.9)

    def _nose(self, s: Sketch) -> None:
        p = self.person
        tip = p.nose_length + p.nose_tip
        wing = _mix(self.skin, self.shade, 0.8)
        wing_x, wing_y = p.nose_width - 2.6 + _WING_X, p.nose_length + 0.5 + _WING_Y
        s.add(s.crisp, wing, wing_x, wing_y, lift=4.0, mirror=True, width=1.0)
        s.add(s.crisp, self.shade * 0.5, 0.5 * p.nose_width + 1.9 * _COS, tip + 2.2 + _SIN, lift=6.0, mirror=True)
        s.add(s.crisp, wing, 2.2 * _U, tip + 3.2 + 0.8 * _DOME, lift=8.0, width=0.9)

    def _marks(self, s: Sketch) -> None:
        p = self.person
        if p.freckles > 0.7:
            x, y = _FRECKLES[:, :1] + 0.5 * _COS[::4], _FRECKLES[:, 1:] + 0.5 * _SIN[::4]
            s.add(s.crisp, _mix(self.skin, self.shade, 0.7), x, y, mirror=True)
        if abs(p.mole_x) > 9.0:
            s.add(s.crisp, self.shade * 0.45, p.mole_x + 1.1 * _COS[::2], p.mole_y + 1.1 * _SIN[::2])

    def _eyes(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        shut = 0.92 if shot.blink < 0.04 else shot.eyelids + 0.15 * max(shot.smile, 0.0)
        opening = p.eye_open * (1.0 - shut)

        def upper(u: np.ndarray) -> np.ndarray:
            return -opening * (1.0 - u**2) * (1.0 + p.eye_skew * u)

        def lower(u: np.ndarray) -> np.ndarray:
            return p.eye_lower * opening * (1.0 - u**2)

        def place(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return p.eye_spacing + x, p.eye_height + y - p.eye_tilt * x

        x, top, bottom = p.eye_width * _U, upper(_U), lower(_U)
        crease = top - p.crease * _DOME**0.6
        painted = shot.eye_shadow < 0.2 and self.made_up
        lid = _mix(self.skin, self.cloth, 0.4) if painted else 0.94 * self.skin
        s.add(s.crisp, lid, *place(*_between_curves(x, crease, top)), mirror=True)
        s.add(s.crisp, _WHITE, *place(*_between_curves(x, top, bottom)), mirror=True)
        iris = _tone(_IRIS, p.iris_tone)
        look_x, look_y = _SIDES * shot.gaze_x, shot.gaze_y - 0.25 * opening  # not mirrored: both look the same way
        radius = p.iris * _IRIS_RINGS
        ring_x = np.minimum(np.maximum(look_x + radius * _COS, -p.eye_width), p.eye_width)
        u = ring_x / p.eye_width
        ring_x, ring_y = place(ring_x, np.minimum(np.maximum(look_y + radius * _SIN, upper(u)), lower(u)))
        for ring, color in enumerate((0.6 * iris, iris, 0.6 * _DARK)):
            s.add(s.crisp, color, _SIDES * ring_x[ring], ring_y[ring])
        if shut < 0.6:
            spark_x = look_x + _SIDES * 1.2 + 0.8 * _COS
            spark_x, spark_y = place(spark_x, np.broadcast_to(look_y - 0.8 + 0.8 * _SIN, spark_x.shape))
            s.add(s.crisp, 1.06 * _WHITE, _SIDES * spark_x, spark_y)
        s.add(s.crisp, _mix(_DARK, self.skin, 0.12), *place(1.06 * x, top), mirror=True, width=1.3)
        s.add(s.crisp, _mix(self.shade, _DARK, 0.15), *place(x, crease), mirror=True, width=0.6)
        s.add(s.crisp, 0.8 * self.shade, *place(x[3:], bottom[3:]), mirror=True, width=0.6)

    def _brows(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        along = p.brow_length * _U
        y = p.eye_height - p.brow_height - shot.brow_raise - p.brow_arch * _DOME - p.brow_tilt * along
        y = y + 1.6 * shot.frown * np.minimum(_U, 0.0) ** 2
        half = 0.5 * p.brow_thickness * np.sqrt(np.minimum(1.0, 1.4 * (1.0 - _U) + 0.15))
        color = _mix(_mix(self.hair, _DARK, 0.35), self.skin, 0.12)
        brow = _between_curves(p.eye_spacing + p.brow_offset + along, y - half, y + half)
        s.add(s.crisp, color, *brow, lift=1.0, mirror=True)

    def _hair_in_front(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        parting = p.parting + shot.hair_move
        line = p.hairline + shot.hair_lift
        x = (p.face_width + 0.5) * _U
        y = line + p.hair_peak * np.exp(-((_U / 0.3) ** 2)) - line * np.abs(_U) ** (2.2 + 5.0 * p.temple)
        y = y + 26.0 * max(p.fringe - 0.35, 0.0) * np.abs(np.sin(1.6 * (_U - parting))) * _DOME
        y = y + 2.2 * p.curl * np.sin(11.0 * (_U + parting)) * _DOME
        crown_x = self.outline_x[:9] * (1.0 + p.hair_volume / 60.0)
        crown_y = self.outline_y[:9] - 0.8 * p.hair_volume
        cap_x, cap_y = _both_halves(crown_x[::-1], crown_y[::-1])
        s.add(s.crisp, self.hair, np.concatenate((cap_x, x)), np.concatenate((cap_y, y)), lift=1.0)
        # Strands fall from the parting to the hairline.
        root_x, root_y = 0.5 * parting * p.face_width, -60.0
        end_x = np.interp(_STRANDS, np.arange(15.0), x)
        end_y = np.interp(_STRANDS, np.arange(15.0), y)
        strand_x = np.array((root_x + 0.12 * end_x, 0.3 * root_x + 0.68 * end_x, 0.97 * end_x)).T
        strand_y = np.array((np.full(30, root_y), 0.62 * root_y + 0.38 * end_y - 3.0, end_y - 1.5)).T
        for number, tone in enumerate((0.84, 1.12, 0.92, 1.24, 0.74)):
            s.add(s.crisp, tone * self.hair, strand_x[number::5], strand_y[number::5], lift=1.0, width=0.6)
        if self.hair_length > 0.6:
            drop = 20.0 + 110.0 * (self.hair_length - 0.55)
            lock_x = p.face_width + np.array([-6.0, 2.0, p.hair_volume, p.hair_volume, -1.0, -3.0])
            lock_y = np.array([-24.0, -26.0, -6.0, drop, drop + 6.0, 0.3 * drop])
            s.add(s.crisp, 0.95 * self.hair, lock_x, lock_y, lift=2.0, mirror=True)
            s.add(s.crisp, 0.75 * self.hair, lock_x[::2] + 3.0, lock_y[::2], lift=2.0, mirror=True, width=0.6)

    def _worn(self, s: Sketch) -> None:
        p, shot = self.person, self.shot
        if shot.glasses < 0.16:
            power = 1.0 - 0.6 * shot.glasses_shape
            rim_x = p.eye_spacing + 12.0 * np.sign(_COS) * np.abs(_COS) ** power
            rim_y = 1.0 + (7.0 + 3.5 * shot.glasses_shape) * np.sign(_SIN) * np.abs(_SIN) ** power
            if shot.glasses < 0.025:
                s.add(s.crisp, 1.2 * _DARK, rim_x, rim_y, lift=7.0, mirror=True)
            frame = 0.4 * self.cloth
            rim_x, rim_y = np.append(rim_x, rim_x[0]), np.append(rim_y, rim_y[0])
            s.add(s.crisp, frame, rim_x, rim_y, lift=7.0, mirror=True, width=1.2)
            s.add(s.crisp, frame, (p.eye_spacing - 12.0) * _U, -1.5 * _DOME, lift=8.0, width=1.2)
            arm_x = np.array([p.eye_spacing + 12.0, p.face_width + 2.0])
            s.add(s.crisp, frame, arm_x, np.array([-1.0, 1.0]), mirror=True, width=1.0)
        if shot.hat < 0.12:
            x = (p.face_width + 4.0) * _U
            brim = 7.0 * _U**2 - 22.0 - 60.0 * shot.hat
            s.add(s.crisp, self.cloth, *_between_curves(x, 12.0 * _U**2 - 80.0, brim), lift=3.0)
            s.add(s.crisp, 0.75 * self.cloth, *_between_curves(x, brim - 9.0, brim), lift=3.0)

    def _cover(self, s: Sketch) -> None:
        """Add what hides a part: a mask, a hand, strands of hair or a thing held up; mostly nothing."""
        p, shot = self.person, self.shot
        across = shot.cover_place - 0.5
        if shot.cover < 0.04:
            x, top = 0.96 * p.face_width * _U, 14.0 + 8.0 * shot.cover_place + 5.0 * _U**2
            mask = np.append(x, 0.7 * x[::-1]), np.append(top, 45.0 + 24.0 * _DOME)
            s.add(s.crisp, self.cloth, *mask, lift=8.0)
            s.add(s.crisp, 0.85 * self.cloth, 0.9 * x, top + 14.0, lift=8.0, width=0.8)
        elif shot.cover < 0.09:
            side = math.copysign(1.0, across)
            angle = (0.15 + 0.2 * shot.cover_turn + 0.22 * np.arange(4.0))[:, None]
            reach = np.array([0.0, 52.0])
            x, y = side * (70.0 - reach * np.cos(angle)), 62.0 - reach * np.sin(angle)
            s.add(s.crisp, self.shade, x, y, lift=16.0, width=11.0)
            s.add(s.crisp, 0.96 * self.skin, x, y, lift=16.0, width=9.0)
        elif shot.cover < 0.16:
            x = 80.0 * across + 3.0 * np.arange(5.0)[:, None] + 12.0 * across * _U + 5.0 * np.sin(2.0 * _U)
            y = np.broadcast_to(35.0 * _U - 30.0, x.shape)
            s.add(s.crisp, 0.9 * self.hair, x, y, lift=6.0, width=1.6)
            s.add(s.crisp, 1.2 * self.hair, x[::2] + 1.2, y[::2], lift=6.0, width=0.6)
        elif shot.cover < 0.19:
            angle = shot.cover_turn + np.array([0.45, math.pi - 0.45, math.pi + 0.45, -0.45])
            x, y = 60.0 * across + 24.0 * np.cos(angle), 30.0 + 24.0 * np.sin(angle)
            s.add(s.crisp, 0.6 * self.cloth, x, y, lift=16.0)


def _tone(tones: np.ndarray, share: float) -> np.ndarray:
    """Return the color at ``share`` of the way along a row of them."""
    place = min(max(share, 0.0), 1.0) * (len(tones) - 1)
    low = min(int(place), len(tones) - 2)
    return _mix(tones[low], tones[low + 1], place - low)


def _mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return first + share * (second - first)


def _both_halves(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the closed outline of which the right half is given."""
    return np.concatenate((x, -x[::-1])), np.concatenate((y, y[::-1]))


def _between_curves(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the closed outline of what lies between two curves over the same ``x``."""
    return np.concatenate((x, x[::-1])), np.concatenate((upper, lower[::-1]))
