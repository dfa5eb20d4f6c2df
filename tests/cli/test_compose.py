"""Configurations that cannot be: said in one message, whichever library has met them, and soon."""

import re
from pathlib import Path

import pytest

from arcdist.cli.compose import check_overrides
from arcdist.errors import ConfigError

_DOUBLES = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 25))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("5", "Invalid loaded object type: int"),
        ("[a]", "Cannot merge DictConfig with ListConfig"),
        ("seed: [1]", "seed: as recipe/theirs has it: Value '[1]' of type 'ListConfig' could not be converted"),
        ("train: null", "train: as recipe/theirs has it: field 'train' is not Optional"),
        ("train: {stpes: 1}", "train.stpes: set by recipe/theirs, but the chosen train has no such key"),
        ("null: 1", "Incompatible key type 'NoneType'"),
        ("name: a: b", 'theirs.yaml", line 2'),
        ("name: " + 300 * "[" + 300 * "]", "nested too deep"),
        ("defaults: [theirs]", "its defaults name itself"),
        (f"a0: &a0 [1, 1]\n{_DOUBLES}", "theirs.yaml: has 48 YAML aliases"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_what_is_wrong_in_it(tmp_path: Path, recipe: str, message: str) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/theirs.yaml").write_text(f"# @package _global_\n{recipe}\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_overrides([f"hydra.searchpath=[file://{tmp_path}]", "recipe=theirs"])


@pytest.mark.parametrize("step", ["1,1e15", "1,inf", "1,nan", "0,1,1e-320", "1,5,0"])
def test_a_sweep_of_more_runs_than_anybody_does_is_refused_before_it_is_written_out(step: str) -> None:
    with pytest.raises(ConfigError, match="a sweep has at most 1,000 runs"):
        check_overrides([f"seed=range({step})"])


@pytest.mark.parametrize("sweep", ["interval(1,2)", "glob(*)"])
def test_a_sweep_without_values_is_refused(sweep: str) -> None:
    with pytest.raises(ConfigError, match=r"a sweep is a,b or choice\(a,b\) or range\(1,5\)"):
        check_overrides([f"seed={sweep}"])
