"""ElasticFace: a margin of its own for every row and step, drawn around a mean."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from arcdist.margins.angle import widened_cosine
from arcdist.margins.config import MarginConfig, named, require, require_cosine_margin, require_radians, require_scale
from arcdist.margins.protocol import Margin

KINDS = ("arc", "cos")
_PURPOSE = 0x656C6173  # keeps these draws apart from others of the same seed and step


@dataclass
class ElasticFaceConfig(MarginConfig):
    """ElasticFace: margins drawn from a normal distribution, which let the classes' borders give."""

    name: str = named("elasticface")
    scale: float = field(default=64.0, metadata={"help": "s, multiplies every logit"})
    kind: str = field(
        default="arc", metadata={"help": "arc (the margin on the angle, in radians) | cos (on the cosine)"}
    )
    m: float = field(default=0.5, metadata={"help": "the margins' mean; the authors use 0.5 for arc, 0.35 for cos"})
    std: float = field(default=0.05, metadata={"help": "the margins' standard deviation"})
    plus: bool = field(
        default=False, metadata={"help": "whether rows farther from their center get the larger margins (ElasticFace+)"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        require_scale(self.scale)
        require(self.kind in KINDS, "kind", self.kind, f"be one of {', '.join(KINDS)}")
        (require_radians if self.kind == "arc" else require_cosine_margin)("m", self.m)
        require(0 <= self.std < math.inf, "std", self.std, "be a number of at least 0")

    def _margin(self, num_classes: int | None, seed: int) -> "ElasticFace":
        return ElasticFace(self.scale, self.kind, self.m, self.std, self.plus, seed)


class ElasticFace(Margin):
    """``scale · cos(θ + E)`` (arc) or ``scale · (cos θ − E)`` (cos) with E ~ N(m, std²); arXiv:2109.09416, eq. 6 and 7.

    A row's E is a function of (seed, step, place in the global batch), the steps being counted by ``end_step``; torch's
    generators take no part. With ``plus`` the drawn margins are dealt out by rank, the largest to the row of the
    smallest cosine, among the rows of one round. (The authors' code indexes the sorted margins by the sorting
    permutation where it needs the inverse, and so deals them out nearly at random; here it is as their paper says.)

    Where no head has set ``rows``, a round's rows follow those that the rounds before have shown. Drawing reads the
    number of the step, for which the host waits for a GPU, once a round.
    """

    step: Tensor

    def __init__(
        self,
        scale: float = 64.0,
        kind: str = "arc",
        m: float = 0.5,
        std: float = 0.05,
        plus: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scale, self.kind, self.m, self.std, self.plus, self.seed = scale, kind, m, std, plus, seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._seen = 0

    @torch.no_grad()
    def _margins(self, cosine: Tensor) -> Tensor:
        """Return a margin for each row, ``[B]``."""
        rows = np.arange(self._seen, self._seen + len(cosine)) if self.rows is None else self.rows.numpy()
        # A stream of normal numbers that is read from its start gives row n its own, whatever is read beside it.
        stream = np.random.default_rng((self.seed % 2**63, _PURPOSE, int(self.step)))
        drawn = stream.standard_normal(rows.max(initial=-1) + 1)[rows]
        margins = self.strength * (self.m + self.std * torch.from_numpy(drawn).to(cosine))
        if self.plus:
            farthest_first = cosine.argsort(stable=True)
            margins = torch.empty_like(margins).scatter_(0, farthest_first, margins.sort(descending=True).values)
        return margins

    def target_logit(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the target's logit, ``[B]``."""
        margins = self._margins(cosine)
        return self.scale * (widened_cosine(cosine, 1.0, margins) if self.kind == "arc" else cosine - margins)

    def observe(self, cosine: Tensor, norm: Tensor, negatives: Tensor) -> None:
        """Count the rows."""
        self._seen += len(cosine)

    def end_step(self) -> None:
        """Count the step; the next one draws anew."""
        self.step += 1
        self._seen = 0
