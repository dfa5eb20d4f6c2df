"""A run as one HTML file."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from arcdist.cli.report import main
from arcdist.errors import DataError
from arcdist.evaluate.html_report import html_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a folder as a finished run leaves it."""
    scored = {"pairs": 1500, "accuracy": 0.875, "std": 0.01, "eer": 0.125, "auc": 0.95}
    summary = {"name": "a <b>run</b>", "machine": "a CPU", "sets": {"lfw": scored}, "versions": {"torch": "2.13"}}
    summary |= {"images": 1234567, "loss": 4.2641358256340025}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "config.yaml").write_text("name: <script>alert(1)</script>\n")
    cv2.imwrite(str(tmp_path / "loss.png"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_report_holds_everything_itself_and_names_no_other_place(run: Path) -> None:
    assert main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "87.50 ± 1.00" in page
    assert "<td>1,234,567" in page
    assert "<td>4.264<" in page
    assert "width=device-width" in page
    tags = _Tags()
    tags.feed(page)
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert [image["src"].startswith("data:image/png;base64,") for image in images] == [True]
    assert not [tag for tag, attributes in tags.found if tag in ("script", "link", "b") or "href" in attributes]


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="come to its end"):
        html_report(tmp_path)


def test_a_report_that_is_too_heavy_to_mail_is_refused(run: Path) -> None:
    (run / "roc.png").write_bytes(bytes(2_000_000))
    with pytest.raises(DataError, match="over 2,000,000"):
        html_report(run)
