"""Of a list of pairs and a folder a set is made only where every image is there."""

from pathlib import Path

import pytest

from arcdist.errors import DataError
from arcdist.prepare.pairs import PairsConfig, pack_pairs


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a\t1\t2\n")
    with pytest.raises(DataError, match=r"a/a_0001\.jpg: no such image"):
        pack_pairs(PairsConfig(str(tmp_path), str(tmp_path / "o.bin"), str(tmp_path / "pairs.txt")))
