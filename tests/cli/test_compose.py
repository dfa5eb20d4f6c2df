"""Configurations that cannot be: said in one message, whichever library has met them, and soon."""

import re
from pathlib import Path

import pytest

from arcdist.checkpoint import schema
from arcdist.checkpoint.schema import Change
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


_A_LIST = "is, since schema 2 of the configuration, a list, such as [layer1:0.1,layer2:0.3]"


@pytest.mark.parametrize("key", ["optim.lr_scales", "optim.lr_scales.layer1"])
@pytest.mark.parametrize("added", ["", "+"])
def test_a_key_of_an_older_schema_is_told_with_how_it_is_written_now(key: str, added: str) -> None:
    value = "0.1" if key.endswith("layer1") else "{layer1:0.1}"
    with pytest.raises(ConfigError, match=re.escape(f"{key}: {_A_LIST}")):
        check_overrides([f"{added}{key}={value}"])


def test_a_key_that_was_renamed_or_removed_is_told_from_the_command_line_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed, gone = Change(2, "data.kept", "data.cache"), Change(2, "optim.lookahead", note="take optim=adamw")
    monkeypatch.setattr(schema, "CHANGES", (renamed, gone))
    told = "data.kept: was renamed to data.cache in schema 2 of the configuration: write data.cache=…"
    for override in ("data.kept=a", "+data.kept=a"):
        with pytest.raises(ConfigError, match=re.escape(told)):
            check_overrides([override])
    with pytest.raises(ConfigError, match="optim.lookahead: was removed in schema 2 of the configuration; take optim"):
        check_overrides(["optim.lookahead=true"])
    for group, text in (("recipe", "# @package _global_\ndata: {kept: a}\n"), ("data", "kept: a\n")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "theirs.yaml").write_text(text)
        with pytest.raises(ConfigError, match=re.escape(f"{group}/theirs.yaml: {told}")):
            check_overrides([f"hydra.searchpath=[file://{tmp_path}]", f"{group}=theirs"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("optim: {lr_scales: {layer1: 0.1}}", f"theirs.yaml: optim.lr_scales: {_A_LIST}"),
        ("schema: 99\nhead: {blue: 1}", "theirs.yaml: schema: 99: is of a newer arcdist; this one knows"),
        ("schema: 99", "schema: 99: is of a newer arcdist; this one knows"),
        ("schema: 1", f"schema: 1: this arcdist has 2; mend what is of these, and write 2: optim.lr_scales {_A_LIST}"),
    ],
)
def test_a_recipe_of_another_schema_is_refused_by_what_that_means(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/theirs.yaml").write_text(f"# @package _global_\n{file}\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_overrides([f"hydra.searchpath=[file://{tmp_path}]", "recipe=theirs"])


def test_what_is_written_under_a_list_is_no_key() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.sets.lfw: no such key; did you mean 'evaluate.sets'"):
        check_overrides(["evaluate.sets.lfw=a.bin"])
