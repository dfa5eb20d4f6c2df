"""LFW's pairs.txt is read as it is, and what is no pair is named with its line."""

from pathlib import Path

import pytest

from arcdist.data.pairs_txt import identities_of, read_pairs
from arcdist.errors import DataError


def test_genuine_and_impostor_pairs_are_read_with_or_without_a_header(tmp_path: Path) -> None:
    pairs = [(("a", 1), ("a", 2), True), (("a", 1), ("b", 3), False)]
    for header in ("", "1\t1\n", "1\n"):
        (tmp_path / "pairs.txt").write_text(header + "a\t1\t2\na\t1\tb\t3\n")
        assert read_pairs(tmp_path / "pairs.txt") == pairs
    assert identities_of(tmp_path / "pairs.txt") == {"a", "b"}


@pytest.mark.parametrize(("header", "says"), [("10\t300", 6000), ("500", 1000)])
def test_a_list_that_is_not_as_long_as_its_header_says_is_refused(tmp_path: Path, header: str, says: int) -> None:
    (tmp_path / "pairs.txt").write_text(f"{header}\na\t1\t2\na\t1\tb\t3\n")
    with pytest.raises(DataError, match=rf"pairs\.txt: 2 pairs, but its first line '.*' says {says}; is it whole"):
        read_pairs(tmp_path / "pairs.txt")


@pytest.mark.parametrize("number", ["²", "٣", "-1", "9" * 5000, "x"])
def test_a_number_that_is_none_is_named_with_its_line(tmp_path: Path, number: str) -> None:
    (tmp_path / "pairs.txt").write_text(f"a\t1\t2\na\t{number}\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.txt: line 2: neither NAME n1 n2"):
        read_pairs(tmp_path / "pairs.txt")
