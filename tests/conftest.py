"""Fixtures that every room's tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from arcdist.data.synthetic import SyntheticConfig, write_pairs, write_record
from arcdist.runtime.float32_products import library, multiplied_by

DATA_ROOT = Path(os.environ.get("ARCDIST_TEST_DATA", "../shared/data"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real faces; the test is skipped where it is absent."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"no test data at {DATA_ROOT.absolute()}; set ARCDIST_TEST_DATA to a folder that has it")
    return DATA_ROOT.absolute()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``train.rec`` (10 identities × 6 images, 32 px wide) and ``held_out.bin`` (40 pairs)."""
    folder = tmp_path_factory.mktemp("faces")
    config = SyntheticConfig(identities=10, images_per_identity=6, image_size=32)
    write_record(config, folder / "train.rec", workers=1)
    write_pairs(config, folder / "held_out.bin", 40, workers=1)
    return folder


@pytest.fixture(autouse=True)
def _float32_products_as_before() -> Iterator[None]:
    """Undo what a test's run has chosen for its process: other bits for the tests after it."""
    with multiplied_by(library()):
        yield
