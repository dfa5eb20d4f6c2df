from pathlib import Path

import pytest
import torch

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.iqiyi import mean_average_precision, nearest_clips, read_clips


def plain_map(answers: dict, truth: dict, most: int) -> float:
    total = 0.0
    for person, clips in truth.items():
        right = 0
        for place, clip in enumerate(answers.get(person, [])[:most], 1):
            if clip in clips:
                right += 1
                total += right / place / len(clips) / len(truth)
    return total


def test_map_is_that_of_a_plain_loop() -> None:
    truth = {1: ["a", "b", "c"], 2: ["d"], 7: ["e", "f"]}
    answers = {1: ["a", "x", "c", "b"], 2: ["x", "y", "d"], 9: ["e"]}
    for most in (1, 2, 3, 100):
        found = mean_average_precision(answers, truth, most=most)
        assert found == pytest.approx(plain_map(answers, truth, most), abs=1e-12)


def test_perfect_answers_score_1_unless_clips_are_more_than_asked_for() -> None:
    truth = {1: [f"clip{number}" for number in range(120)]}
    assert mean_average_precision(truth, truth) == pytest.approx(100 / 120, abs=1e-12)
    assert mean_average_precision(truth, truth, normalizer="findable") == pytest.approx(1.0, abs=1e-12)


def test_repeated_answers_count_once() -> None:
    assert mean_average_precision({1: ["a", "a", "b"]}, {1: ["a", "b"]}) == 1.0
    assert mean_average_precision({1: ["x", "x", "a"]}, {1: ["a"]}) == 0.5


def test_the_nearest_clips_come_first() -> None:
    people, clips = torch.eye(2), torch.tensor([[1.0, 2.0], [1.0, 0.1], [3.0, 1.0]])
    assert nearest_clips(people, [5, 9], clips, ["a", "b", "c"], 2) == {5: ["b", "c"], 9: ["a", "c"]}
    with pytest.raises(DataError, match="1 ids for 2 people"):
        nearest_clips(people, [5], clips, ["a", "b", "c"])


def test_lists_are_read_and_bad_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_text("1 a.mp4 b.mp4\n2\n\n")
    assert read_clips(path) == {1: ["a.mp4", "b.mp4"], 2: []}
    for content, message in (
        ("1 a\n1 b\n", "answers.txt:2: person 1 is there already"),
        ("a.mp4 1\n", "answers.txt:1: the person's id is 'a.mp4'"),
        ("\n", "holds no person"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_clips(path)


def test_a_truth_that_cannot_be_scored_is_refused() -> None:
    for truth in ({}, {1: ["a"], 2: []}):
        with pytest.raises(DataError, match="each needs one"):
            mean_average_precision({}, truth)
    with pytest.raises(ConfigError, match="normalizer: 'most'"):
        mean_average_precision({}, {1: ["a"]}, normalizer="most")
