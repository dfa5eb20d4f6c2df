"""Curves on the surface of a face, collected in the order in which they are painted."""

import numpy as np


def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return z of the smooth face at each ``(x, y)``; it falls away to the sides more than to crown and chin."""
    return -(x**2) / 80.0 - (y - 15.0) ** 2 / 180.0


class Sketch:
    """Curves in three layers: ``soft`` lies under ``crisp``, and ``relief`` lightens or darkens both.

    Each entry of a layer is ``(color, width, start, copies, n)``: ``copies`` curves of ``n`` points each, from row
    ``start`` of ``points()`` on.
    """

    def __init__(self) -> None:
        self.soft: list[tuple] = []
        self.crisp: list[tuple] = []
        self.relief: list[tuple] = []
        self._x: list[np.ndarray] = []
        self._y: list[np.ndarray] = []
        self._lift: list[float] = []
        self._count = 0

    def add(
        self,
        layer: list[tuple],
        color: "np.ndarray | float",
        x: np.ndarray,
        y: np.ndarray,
        *,
        lift: float = 0.0,
        mirror: bool = False,
        width: float = 0.0,
    ) -> None:
        """Add filled polygons or, with a ``width`` in px, lines.

        Args:
            layer: one of the three.
            color: RGB, or for ``relief`` a number, of which 128 changes nothing.
            x: ``[n]``, or ``[k, n]`` for k curves at once; ``y`` likewise.
            y: see ``x``.
            lift: px above the smooth face.
            mirror: add them on the other side too.
            width: px; 0 fills.
        """
        n = x.shape[-1]
        x, y = x.ravel(), y.ravel()
        copies = x.size // n
        if mirror:
            self._x.append(-x)
            self._y.append(y)
            self._lift.append(lift)
            copies *= 2
        self._x.append(x)
        self._y.append(y)
        self._lift.append(lift)
        layer.append((color, width, self._count, copies, n))
        self._count += copies * n

    def points(self) -> np.ndarray:
        """Return the points of all curves in the order in which they were added, ``[n, 3]``."""
        x, y = np.concatenate(self._x), np.concatenate(self._y)
        lift = np.repeat(self._lift, [part.size for part in self._x])
        return np.array((x, y, lift + depth(x, y))).T
