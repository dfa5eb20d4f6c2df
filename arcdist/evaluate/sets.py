"""Evaluation sets by path: read once, scored whenever a run or a command asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from arcdist.data.evalsets import PairSet, read_bin
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embed import embed
from arcdist.evaluate.verification import VerificationResult, pair_cosines, require_folds, verify

Grid = Literal["insightface", "exact"]


@dataclass
class EvaluateConfig:
    """Which sets are scored, and when."""

    sets: list[str] = field(default_factory=list, metadata={"help": "verification sets, .bin files"})
    every: int = field(default=0, metadata={"help": "steps between two evaluations; 0: at the end only"})
    at_start: bool = field(default=False, metadata={"help": "also before the first step"})
    flip: bool = field(default=True, metadata={"help": "add the embedding of the mirrored image, as the field does"})
    batch_size: int = field(default=128, metadata={"help": "images in one forward pass of a rank"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.every < 0:
            raise ConfigError(f"evaluate.every: {self.every}: must be 0 (at the end only) or more")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: {self.batch_size}: of an evaluation, must be at least 1")


class Scored(NamedTuple):
    """What a set scores, and the cosines behind it for the pictures."""

    result: VerificationResult
    cosines: tuple[np.ndarray, np.ndarray]


def read_sets(paths: list[str]) -> dict[str, PairSet]:
    """Return the sets by the stem of their file's name.

    Errors: DataError for a file that is no such set, or one that cannot be scored; ConfigError for two of one name.
    """
    sets: dict[str, PairSet] = {}
    for path in paths:
        name = Path(path).stem
        if name in sets:
            raise ConfigError(f"sets: two sets are called {name!r}; rename one of the files")
        sets[name] = read_bin(path)
        require_folds(sets[name].same, path)
    return sets


def score_sets(
    model: nn.Module,
    sets: Mapping[str, PairSet],
    config: EvaluateConfig,
    *,
    device: torch.device,
    image_size: int,
    precision: str = "fp32",
    grid: Grid = "insightface",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Scored]:
    """Return what each set scores, the same on every rank; all ranks embed, see ``embed``.

    Errors: DataError, with the set's name, for what ``embed`` and ``verify`` refuse.
    """
    scores = {}
    for name, pairs in sets.items():
        embeddings = embed(
            model,
            pairs.images,
            device=device,
            batch_size=config.batch_size,
            flip=config.flip,
            image_size=image_size,
            precision=precision,
            name=name,
            progress=progress,
        ).numpy()
        try:
            scores[name] = Scored(verify(embeddings, pairs.same, grid=grid), pair_cosines(embeddings, pairs.same))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    return scores
