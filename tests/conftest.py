"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest

DATA_ROOT = Path(os.environ.get("ARCDIST_TEST_DATA", "../shared/data"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real faces; the test is skipped where it is absent."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"no test data at {DATA_ROOT.absolute()}; set ARCDIST_TEST_DATA to a folder that has it")
    return DATA_ROOT.absolute()
