"""Whatever is handed in is refused with a message, or read rightly."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from arcdist.bench.fuzz import FuzzConfig, fuzz
from arcdist.bench.fuzz_sets import Sets
from arcdist.bench.fuzz_weights import Checkpoints, Weights
from arcdist.cli.strange_configurations import Configurations
from arcdist.errors import DataError


def test_nothing_that_is_handed_in_crashes_hangs_runs_code_or_is_read_wrongly_in_silence() -> None:
    result = fuzz(FuzzConfig(files=400, seed=1, progress=False), (Sets, Weights, Checkpoints, Configurations))
    assert result["crashes"] == result["hangs"] == result["silent"] == result["code_ran"] == []
    assert sum(sum(outcomes.values()) for outcomes in result["outcomes"].values()) == 400
    assert len(result["outcomes"]) == 12
    assert all(outcomes["refused"] > 0 for outcomes in result["outcomes"].values())


class _Bad:
    """Inputs whose reader does what it should not."""

    shares: ClassVar[dict[str, int]] = {"crash": 1, "does as asked": 1, "writes": 1, "no word": 1, "refused": 1}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def damage(self, kind: str, rng: np.random.Generator, canary: Path) -> str:
        self.canary = canary
        return kind

    def read(self, kind: str) -> str:
        if kind == "crash":
            raise KeyError("key")
        if kind == "does as asked":
            self.canary.mkdir()
        if kind == "writes":
            (self.folder / "file").write_text("text")
        if kind == "refused":
            raise DataError("a reason")
        return "other label"


def test_what_a_reader_must_not_do_is_seen() -> None:
    result = fuzz(FuzzConfig(files=5, progress=False), (_Bad,))
    counts = {kind: next(iter(outcomes)) for kind, outcomes in result["outcomes"].items()}
    told = {"crash": "crash", "does as asked": "code ran", "writes": "code ran", "no word": "other label"}
    assert counts == {**told, "refused": "refused"}
    assert "KeyError: 'key'" in result["crashes"][0]
