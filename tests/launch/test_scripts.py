"""Every script of the shell."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sorted(
    path for folder in ("launch", "docker") for path in (ROOT / folder).rglob("*") if path.suffix in (".sh", ".sbatch")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_have_no_fault_that_shellcheck_finds(path: Path) -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--external-sources", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout
