"""Racial Faces in the Wild: verification of four groups of people, and how far apart they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from torch import Tensor

from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.protocols.pairs import check_grid, named
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.rfw import GROUPS, group_spread, read_rfw_pairs
from arcdist.evaluate.sets import Grid
from arcdist.evaluate.verification import verify


@dataclass
class GroupsConfig:
    """RFW; images are ``African/m.0abc/m.0abc_0001.jpg``, within ``test/data``."""

    lists: str = field(default="", metadata={"help": "RFW's folder test/txts, with African/African_pairs.txt …"})
    grid: str = field(default="insightface", metadata={"help": "thresholds tried: insightface (0.01 apart) | exact"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        check_grid(self.grid)
        parts, labels = {}, {}
        for group in GROUPS:
            path = Path(named("lists", self.lists), group, f"{group}_pairs.txt")
            pairs, labels[group] = read_rfw_pairs(path)
            parts[group] = index.rows([f"{group}/{name}" for pair in pairs for name in pair], path, each=2)

        def score(embeddings: Mapping[str, Tensor]) -> Outcome:
            grid = cast(Grid, self.grid)
            results = {group: verify(embeddings[group].numpy(), labels[group], grid=grid) for group in GROUPS}
            spread = group_spread({group: result.accuracy for group, result in results.items()})
            ratio = spread.error_ratio if math.isfinite(spread.error_ratio) else None
            return Outcome(
                {**spread.accuracy, "average": spread.mean, "STD": spread.std},
                {
                    "spread": asdict(spread) | {"error_ratio": ratio},
                    "groups": {group: result.as_dict() for group, result in results.items()},
                },
                [
                    f"each group by its own thresholds; STD with n, {100 * spread.std_unbiased:.2f} with n − 1",
                    f"SER, the largest error over the smallest: {spread.error_ratio:.2f}",
                ],
            )

        return Plan(parts, score)
