"""A sheet shows what is trained on."""

from pathlib import Path

import numpy as np

from arcdist.cli.main import main
from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.prepare.augment_sheet import augment_sheet


def test_a_row_is_an_image_and_what_is_drawn_for_its_visits(data_root: Path) -> None:
    path, config = data_root / "cfp_small.rec", AugmentConfig(rotation_deg=20.0, occlusion=0.5)
    sheet = augment_sheet(path, config, count=18, seed=3)
    assert sheet.shape == (2 * 120, 9 * 120, 3)
    with RecordDataset(path) as dataset:
        last = decode(dataset.read(len(dataset) - 1)[1], "last")
    augment = Augment(config, 3)
    np.testing.assert_array_equal(sheet[124:236, 4:116], last)
    np.testing.assert_array_equal(sheet[124:236, 124:236], augment.apply(last, augment.draw(np.arange(8, 9))[0]))


def test_a_preset_is_drawn_from_the_command_line(data_root: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["inspect", str(data_root / "cfp_small.rec"), "--augment", "adaface", "--sheet", str(sheet)]) == 0
    assert decode(sheet.read_bytes(), "sheet").shape == (7 * 120, 9 * 120, 3)
