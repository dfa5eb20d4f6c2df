"""LFW's pairs.txt is read as it is, and what is no pair is named with its line."""

from pathlib import Path

import pytest

from arcdist.errors import DataError
from arcdist.prepare.pairs import PairsConfig, pack_pairs, read_pairs


def test_genuine_and_impostor_pairs_are_read_with_or_without_a_header(tmp_path: Path) -> None:
    pairs = [(("a", 1), ("a", 2), True), (("a", 1), ("b", 3), False)]
    for header in ("", "10\t300\n", "500\n"):
        (tmp_path / "pairs.txt").write_text(header + "a\t1\t2\na\t1\tb\t3\n")
        assert read_pairs(tmp_path / "pairs.txt") == pairs


@pytest.mark.parametrize("number", ["²", "٣", "-1", "9" * 5000, "x"])
def test_a_number_that_is_none_is_named_with_its_line(tmp_path: Path, number: str) -> None:
    (tmp_path / "pairs.txt").write_text(f"a\t1\t2\na\t{number}\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.txt: line 2: neither NAME n1 n2"):
        read_pairs(tmp_path / "pairs.txt")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a\t1\t2\n")
    with pytest.raises(DataError, match=r"a/a_0001\.jpg: no such image"):
        pack_pairs(PairsConfig(str(tmp_path), str(tmp_path / "o.bin"), str(tmp_path / "pairs.txt")))
