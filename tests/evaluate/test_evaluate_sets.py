"""Sets are looked at when they are read, and errors say which set is meant."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from arcdist.data.evalsets import write_bin
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.sets import EvaluateConfig, read_sets, score_sets


def write(path: Path, same: list[bool]) -> str:
    """Write a set whose images are all the same, and return its path."""
    image = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    write_bin(path, [image] * (2 * len(same)), same)
    return str(path)


@pytest.mark.parametrize(
    ("same", "message"),
    [
        ([True, False, True], r"lfw\.bin: 3 pairs cannot be split into 10 folds"),
        ([True] * 20, r"lfw\.bin: 20 of 20 pairs are genuine"),
        ([False] * 20, r"lfw\.bin: 0 of 20 pairs are genuine"),
    ],
)
def test_a_set_that_cannot_be_scored_is_refused_when_it_is_read(tmp_path: Path, same: list[bool], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sets([write(tmp_path / "lfw.bin", same)])


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "lfw.bin", [True, False] * 10)
    with pytest.raises(ConfigError, match=r"^sets: two sets are called 'lfw'"):
        read_sets([path, path])


def test_an_error_of_scoring_names_the_set(tmp_path: Path) -> None:
    sets = read_sets([write(tmp_path / "lfw.bin", [True, False] * 10)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    nn.init.constant_(model[1].weight, float("nan"))
    with pytest.raises(DataError, match=r"^lfw: 40 of 40 embeddings are not finite"):
        score_sets(model, sets, EvaluateConfig(), device=torch.device("cpu"), image_size=16)
