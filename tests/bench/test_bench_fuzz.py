"""Damaged files are refused with a message, or every image is read with its own label."""

from arcdist.bench.fuzz import FuzzConfig, fuzz


def test_no_damaged_file_crashes_or_gives_a_wrong_label_in_silence() -> None:
    result = fuzz(FuzzConfig(files=1500, seed=1, progress=False))
    assert result["crashes"] == result["silent"] == []
    assert sum(sum(outcomes.values()) for outcomes in result["outcomes"].values()) == 1500
    assert all(outcomes["refused"] > 100 for outcomes in result["outcomes"].values())
