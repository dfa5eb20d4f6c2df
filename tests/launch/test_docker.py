"""The image's recipe and the compose file."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_dockerfile_has_no_fault_that_hadolint_finds() -> None:
    found = subprocess.run([_program("hadolint"), ROOT / "docker/Dockerfile"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_compose_file_keeps_to_its_schema() -> None:
    check = [_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", ROOT / "docker/compose.yaml"]
    found = subprocess.run(check, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_what_a_context_of_docker_leaves_out_is_not_asked_for() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    asked = {name.split("/")[0] for names in copied for name in names.split()} - {"."}
    assert asked <= kept
    assert all((ROOT / name).exists() for name in kept)


def _program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is missing; make setup installs it"
    return found
