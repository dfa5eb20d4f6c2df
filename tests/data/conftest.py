"""What several tests of the data set out from."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def path(data_root: Path, tmp_path: Path) -> Path:
    """Return a copy of a small real set."""
    for suffix in (".rec", ".idx", ".property"):
        shutil.copy(data_root / f"cfp_small{suffix}", tmp_path)
    os.chmod(tmp_path / "cfp_small.rec", 0o644)
    return tmp_path / "cfp_small.rec"
