"""The lines of ``--help`` say what to write: a default, or that there is none, under the key as it is spelled."""

from dataclasses import dataclass, field

import pytest

from arcdist.cli.arguments import parse
from arcdist.cli.keys import help_lines
from arcdist.cli.main import main
from arcdist.errors import ConfigError


@dataclass
class Asked:
    """What a verb is told."""

    where: str = field(metadata={"help": "the place"})
    with_: str = field(default="", metadata={"help": "a companion"})
    count_: int = 3


def test_a_key_without_a_default_is_said_to_be_needed() -> None:
    assert help_lines(Asked) == ["  where     needed: the place", "  with=     a companion", "  count_=3  "]


@pytest.mark.parametrize("spelled", [["with=you"], ["--with", "you"], ["--with=you"]])
def test_a_key_may_be_a_word_of_python(spelled: list[str]) -> None:
    assert parse(Asked, ["where=here", *spelled]).with_ == "you"
    with pytest.raises(ConfigError, match="from: no such key"):
        parse(Asked, ["where=here", "from=you"])


@pytest.mark.parametrize("verb", ["pack", "align", "inspect", "embed"])
def test_no_line_of_help_shows_a_default_that_is_none(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert "null" not in capsys.readouterr().out


def test_an_argument_too_many_is_told_what_may_come_without_a_key() -> None:
    assert parse(Asked, ["here", "you"], positions=("where", "with_")).with_ == "you"
    with pytest.raises(ConfigError, match="'more': is neither key=value .* comes without a key: where and with_ "):
        parse(Asked, ["here", "you", "more"], positions=("where", "with_"))
    with pytest.raises(ConfigError, match="comes without a key: nothing "):
        parse(Asked, ["more"])
