"""A configuration of an older schema is carried over or told of by its keys; one of a newer schema is refused."""

from pathlib import Path
from typing import Any

import pytest

from arcdist.checkpoint import schema
from arcdist.checkpoint.marker import read_marker, write_marker
from arcdist.checkpoint.run_config import read_run_config
from arcdist.checkpoint.schema import SCHEMA, Change, about_old_key, about_tree, migrated, removed
from arcdist.cli.keys import keys_of
from arcdist.errors import DataError, NewerError
from arcdist.train.config import TrainConfig

_LATER = (  # a history longer than today's
    Change(2, "data.kept", "data.cache"),
    Change(2, "teacher", "distill", "its weight is a multiple of the loss's"),
    Change(3, "optim.lookahead", note="take optim=adamw"),
    Change(3, "optim.period_s", "optim.period_ms", value=lambda seconds: 1000 * seconds),
    Change(4, "data.cache", "data.local.folder"),
)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a history of four schemas."""
    monkeypatch.setattr(schema, "CHANGES", _LATER)
    monkeypatch.setattr(schema, "SCHEMA", 4)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("optim.period_s", "was renamed to optim.period_ms in schema 3 of the configuration: write optim.period_ms=…"),
        ("data.kept", "was renamed to data.local.folder in schema 4 of the configuration: write data.local.folder=…"),
        (
            "teacher.weight",
            "was renamed to distill.weight in schema 2 of the configuration; its weight is a multiple of the loss's: "
            "write distill.weight=…",
        ),
        ("optim.lookahead", "was removed in schema 3 of the configuration; take optim=adamw"),
    ],
)
@pytest.mark.usefixtures("later")
def test_an_old_key_is_told_with_what_it_is_now(key: str, told: str) -> None:
    assert about_old_key(key) == f"{key}: {told}"


@pytest.mark.usefixtures("later")
def test_what_only_begins_like_an_old_key_is_none() -> None:
    assert about_old_key("teachers.weight") is None
    assert about_old_key("data") is None


@pytest.mark.usefixtures("later")
def test_a_saved_configuration_is_carried_over_from_its_own_schema_on() -> None:
    old = {"data": {"kept": "/a", "path": "b"}, "teacher": {"model": "c"}, "optim": {"lookahead": True, "period_s": 2}}
    now: dict[str, Any] = {"data": {"path": "b", "local": {"folder": "/a"}}, "distill": {"model": "c"}}
    assert migrated(old, "run") == now | {"optim": {"period_ms": 2000}, "schema": 4}
    assert removed(old) == {"optim.lookahead": True}
    assert old["optim"] == {"lookahead": True, "period_s": 2}
    of_3 = {"schema": 3, "data": {"cache": "/a"}, "optim": {"lookahead": True}}  # where that name means another thing
    assert migrated(of_3, "run") == {"schema": 4, "data": {"local": {"folder": "/a"}}, "optim": {"lookahead": True}}
    assert removed(of_3) == {}


def test_learning_rates_of_parts_are_a_list_since_schema_2() -> None:
    old = {"optim": {"lr_scales": {"layer1": 0.1, "layer2": 0.3}}}
    new = {"optim": {"lr_scales": ["layer1:0.1", "layer2:0.3"]}}
    assert migrated(old, "run") == new | {"schema": SCHEMA}
    assert migrated(new, "run") == new | {"schema": SCHEMA}
    told = about_tree(old)
    assert told
    assert "optim.lr_scales: is, since schema 2 of the configuration, a list" in told
    assert about_tree(new) is None


def test_every_change_leads_to_a_key_that_there_is_and_none_to_a_schema_to_come() -> None:
    known = {key.name for key in keys_of(TrainConfig)}
    groups = {".".join(key.split(".")[:-1]) for key in known}
    told = {change.key: about_old_key(change.key) or "" for change in schema.CHANGES}
    for change in schema.CHANGES:
        assert change.since <= SCHEMA
        assert change.now or change.note, f"{change.key}: say what to do without it"
        renamed_to = told[change.key].partition("renamed to ")[2].partition(" ")[0]
        assert not renamed_to or renamed_to in known | groups
    assert [change.since for change in schema.CHANGES] == sorted(change.since for change in schema.CHANGES)


def test_no_key_goes_without_a_word() -> None:
    known = {key.name for key in keys_of(TrainConfig)}
    once = (Path(__file__).parent / "keys_of_schema_2.txt").read_text().split()
    lost = [key for key in once if key not in known and about_old_key(key) is None]
    assert not lost, f"{lost}: say in CHANGES of arcdist/checkpoint/schema.py what became of them, and raise SCHEMA"


@pytest.mark.parametrize("stated", [0, -1, "2", True, None, 1.5])
def test_what_is_no_schema_is_refused(stated: Any) -> None:
    with pytest.raises(DataError, match=r"run: schema: .*: must be a number from 1 on"):
        migrated({"schema": stated}, "run")


def test_a_run_of_a_newer_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"schema: {SCHEMA + 1}\n")
    message = f"written by a newer arcdist: its configuration is of schema {SCHEMA + 1}, this one knows {SCHEMA};"
    with pytest.raises(NewerError, match=message):
        read_run_config(tmp_path)
    about = {"step": 1, "keys": [], "files": {}, "metrics": {}}
    write_marker(tmp_path, {**about, "config": {"schema": SCHEMA + 1}})
    with pytest.raises(NewerError, match=message):
        read_marker(tmp_path)
    write_marker(tmp_path, {**about, "config": {"schema": SCHEMA}})
    assert read_marker(tmp_path)["config"] == {"schema": SCHEMA}
