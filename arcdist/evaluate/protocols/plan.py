"""What a protocol is: a configuration that finds its faces, and a function of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from arcdist.evaluate.face_index import FaceIndex, Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a protocol finds."""

    figures: dict[str, float]
    """What papers print, by the names they use; shares in [0, 1]."""
    details: dict[str, Any]
    """All of it, as a JSON object holds it."""
    notes: list[str] = field(default_factory=list)
    """What the figures stand on: how many pairs, which convention."""
    cosines: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    """By set or group, of genuine and of impostor pairs, for pictures."""
    bars: dict[str, dict[str, float]] = field(default_factory=dict)
    """By heading, by group, a number from 0 on, for a picture."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be done once the lists are read."""

    parts: dict[str, Ints]
    """By name, the rows of the index whose embeddings are needed."""
    score: Callable[[Mapping[str, Tensor]], Outcome]
    """Takes the parts' embeddings, ``[n, D]`` each, of any lengths, the same on every rank."""
    landmarks: Mapping[int, npt.NDArray[np.float64]] | None = None
    """By row of the index, ``[5, 2]`` in pixels, where images are crops that the lists align."""


class ProtocolConfig(Protocol):
    """The lists and options of a protocol, a dataclass."""

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done for these faces.

        Raises DataError for a list that is not as its authors' and one that names a face which is not there;
        ConfigError for an option that cannot be right.
        """
        ...
