"""docs/export.md: its commands have the keys that there are, and its table the kinds."""

import re
import shlex
from pathlib import Path

import pytest

from arcdist.cli.arguments import parse
from arcdist.cli.export import SUFFIXES, ExportArguments

PAGE = (Path(__file__).parent.parent.parent / "docs" / "export.md").read_text()
COMMANDS = re.findall(r"^arcdist export (.*)$", PAGE, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_understood(command: str) -> None:
    arguments = shlex.split(command)
    parse(ExportArguments, arguments, positions=("kind", "output")).validate()


def test_the_page_has_every_kind() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## For a hub")[0], re.M)) == set(SUFFIXES)
    assert {command.split()[0] for command in COMMANDS} == set(SUFFIXES)
