"""How errors differ over groups of people when all share one threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arcdist.evaluate.exact_rates import rates

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class GroupErrors:
    """Shares of a group's pairs that are judged wrongly."""

    false_accepts: float
    false_rejects: float
    genuine: int
    impostor: int


@dataclass(frozen=True)
class OneThreshold:
    """What one threshold does to each group."""

    far: float
    """The share of all groups' impostor pairs that may be accepted."""
    threshold: float
    """The score that an accepted pair exceeds."""
    groups: dict[str, GroupErrors]

    def gap(self, errors: str) -> float:
        """Return by how much the worst group's ``false_accepts`` or ``false_rejects`` exceed the best one's."""
        found = [getattr(group, errors) for group in self.groups.values()]
        return max(found) - min(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it; a threshold of −∞ becomes ``null``."""
        return asdict(self) | {"threshold": self.threshold if np.isfinite(self.threshold) else None}


def errors_at_one_threshold(scores: Mapping[str, tuple[Floats, Floats]], far: float) -> OneThreshold:
    """Return each group's errors at the threshold that ``far`` sets over the impostor pairs of all groups together.

    Args:
        scores: by group, of genuine and of impostor pairs, each at least one.
        far: in [0, 1]; the convention is that of ``exact_rates``.
    """
    genuine, impostor = (np.concatenate([pair[kind] for pair in scores.values()]) for kind in (0, 1))
    threshold = rates(genuine, impostor, [far]).thresholds[far]
    groups = {
        name: GroupErrors(float(np.mean(wrong > threshold)), float(np.mean(right <= threshold)), len(right), len(wrong))
        for name, (right, wrong) in scores.items()
    }
    return OneThreshold(far, threshold, groups)
