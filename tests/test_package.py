"""What is built for others to install: whole, typed, and at work away from the repository."""

import email
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import arcdist

ROOT = Path(__file__).parent.parent
# The source archive is built from the checkout, and the wheel from the source archive, as package indexes do.
_BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("package")
    _build("build_sdist", ROOT, folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    _build("build_wheel", folder / archive.name.removesuffix(".tar.gz"), folder)
    return next(folder.glob("*.whl"))


def _build(what: str, source: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, what, folder], cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_source_file_and_configuration_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    about = f"{wheel.name.split('-')[0]}-{arcdist.__version__}.dist-info/"
    tracked = subprocess.run(["git", "ls-files", "arcdist", "configs"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    expected = {f"arcdist/{name}" if name.startswith("configs/") else name for name in tracked.stdout.splitlines()}
    assert {name for name in held if not name.startswith(about)} == expected
    assert {"arcdist/py.typed", f"{about}licenses/LICENSE"} <= held


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_is_pinned_for_a_python_is_for_that_python(python: str) -> None:
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    there = {"python_version": python, "python_full_version": f"{python}.99"}
    pinned = {pin.name: pin for pin in pins if pin.marker is None or pin.marker.evaluate(there)}
    assert pinned
    for name, pin in pinned.items():
        try:
            about = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another Python, or machine
        needs = SpecifierSet(about.get_all("Requires-Python", [""])[0])
        assert about["Version"] not in pin.specifier or f"{python}.99" in needs, f"{pin} needs Python {needs}"


def test_the_wheel_says_its_licence_and_the_pythons_that_it_is_for(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = email.message_from_string(archive.read(name).decode())
    assert (about["License-Expression"], about["Requires-Python"]) == ("MIT", ">=3.10")
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    pythons = [one.rsplit(" ", 1)[1] for one in about.get_all("Classifier", []) if "Python :: 3." in one]
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    cited = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {arcdist.__version__}\n" in cited
    assert f"\n## {arcdist.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_an_installed_wheel_finds_its_configurations_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import arcdist, json, sys; from arcdist.cli.main import main; main(sys.argv[1:]); "
    command = [sys.executable, "-c", where + "print('#', json.dumps(arcdist.__file__))", "train", "--cfg", "job"]
    told = subprocess.run([*command, "recipe=demo"], cwd=empty, env=environment, capture_output=True, text=True)
    assert "name: demo" in told.stdout, told.stderr
    assert json.loads(told.stdout.splitlines()[-1][2:]) == str(installed / "arcdist/__init__.py")
    assert not list(empty.iterdir())
