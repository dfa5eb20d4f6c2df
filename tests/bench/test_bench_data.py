"""``arcdist bench data``: from the command line to the result file."""

import json
from pathlib import Path

import pytest

from arcdist.bench.data import DataBenchConfig
from arcdist.bench.loaders import METHODS
from arcdist.cli.main import main
from arcdist.data.dali_loader import has_dali
from arcdist.errors import ConfigError


def test_every_method_feeds_and_is_held_against_decoding_alone(data_root: Path, tmp_path: Path) -> None:
    file, result = str(data_root / "cfp_small.rec"), tmp_path / "data.json"
    assert main(["bench", "data", file, "batch_size=8", "rounds=1", "batches=2", "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert found["data"] == {"images": 224, "image_size": "112×112", "mean_bytes": 4321, "rendered": False}
    rows = {row["implementation"]: row for row in found["rows"]}
    assert list(rows) == [name for name in METHODS if name != "dali" or has_dali()]
    for name, row in rows.items():
        assert row["images_per_s"] == pytest.approx(8 / row["median_s"], rel=1e-3)
        assert row["cpu_us_per_image"] > 0
        if name != "decoding alone":
            alone = rows["decoding alone"]["median_s"]
            assert row["of_ceiling"] == pytest.approx(alone / row["median_s"], abs=1e-3)


def test_a_method_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="methods: 'mxnet': must be of decoding alone, torch"):
        DataBenchConfig(methods=["mxnet"]).validate()
