"""The version of a run's configuration, and what became of the keys of older ones."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from arcdist.errors import DataError, NewerError

SCHEMA = 2  # grows with every key that is renamed or removed, or whose values are written otherwise
KEY = "schema"  # of a configuration that says its own; what says none is of the first


@dataclass(frozen=True)
class Change:
    """What became of a key, or of all keys under it.

    Attributes:
        since: the schema that has it so.
        key: its old name.
        now: its name since; the same where only its values are written otherwise, empty where it is no more.
        note: how its values are written, or what to do without it.
        value: makes a new value of an old one that a run has left.
    """

    since: int
    key: str
    now: str = ""
    note: str = ""
    value: Callable[[Any], Any] = lambda value: value


def _as_list(scales: Any) -> Any:
    """Return learning rates by part, ``{layer1: 0.1}``, as ``[layer1:0.1]``."""
    return [f"{part}:{scale}" for part, scale in scales.items()] if isinstance(scales, Mapping) else scales


CHANGES = (Change(2, "optim.lr_scales", "optim.lr_scales", "a list, such as [layer1:0.1,layer2:0.3]", _as_list),)


def sentence(change: Change) -> str:
    """Return a change in words, without the key's name."""
    note = f"; {change.note}" if change.note else ""
    if not change.now:
        return f"was removed in schema {change.since} of the configuration{note}"
    if change.now == change.key:
        return f"is, since schema {change.since} of the configuration, {change.note}"
    return f"was renamed to {change.now} in schema {change.since} of the configuration{note}"


def about_old_key(key: str) -> str | None:
    """Return what a user is told who writes a key of an older schema; None for one that none has.

    Args:
        key: as ``optim.lr``; also one under a key that changed.
    """
    name, last = key, None
    for change in CHANGES:  # the oldest first: what was renamed twice gets its newest name
        if name == change.key or name.startswith(f"{change.key}."):
            last = change
            name = change.now + name[len(change.key) :] if change.now else ""
    if last is None:
        return None
    if name in ("", key):
        return f"{key}: {sentence(last)}"
    return f"{key}: {sentence(replace(last, now=name))}: write {name}=…"


def about_schema(schema: int) -> str | None:
    """Return what is wrong where a configuration is said to be of a schema; None where it is this arcdist's."""
    if schema > SCHEMA:
        return f"schema: {schema}: is of a newer arcdist; this one knows {SCHEMA}"
    if schema < SCHEMA:
        since = "; ".join(f"{change.key} {sentence(change)}" for change in CHANGES if change.since > schema)
        return f"schema: {schema}: this arcdist has {SCHEMA}; mend what is of these, and write {SCHEMA}: {since}"
    return None


def about_tree(config: Mapping[str, Any]) -> str | None:
    """Return what is of another schema in a file of keys that somebody has written; None where nothing is."""
    stated = config.get(KEY, SCHEMA)
    if isinstance(stated, int) and stated > SCHEMA:
        return about_schema(stated)
    for change in CHANGES:
        if _has(config, change.key):
            value = _take(copy.deepcopy(dict(config)), change.key)
            if change.now != change.key or change.value(value) != value:
                return about_old_key(change.key)
    return None


def refuse_newer(config: Mapping[str, Any], where: object) -> None:
    """Raise NewerError where a configuration that a run has left is of a schema that this arcdist does not know.

    Args:
        config: as it was read.
        where: names its place in an error.

    Errors: also DataError, for what is no schema.
    """
    schema = config.get(KEY, 1)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DataError(f"{where}: schema: {schema!r}: must be a number from 1 on")
    if schema > SCHEMA:
        raise NewerError(
            f"{where}: written by a newer arcdist: its configuration is of schema {schema}, this one knows {SCHEMA}; "
            "use that one, or a newer one"
        )


def migrated(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return a configuration that a run has left as this arcdist would have written it.

    What this arcdist no longer has is not in it, see ``removed``. Errors: those of ``refuse_newer``.
    """
    refuse_newer(config, where)
    return _carried_over(config)[0]


def removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration that is not newer says and this arcdist no longer has, by its keys."""
    return _carried_over(config)[1]


def _carried_over(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    tree, gone = copy.deepcopy(dict(config)), {}
    for change in CHANGES:
        if change.since <= config.get(KEY, 1) or not _has(tree, change.key):
            continue
        value = _take(tree, change.key)
        if change.now:
            _put(tree, change.now, change.value(value))
        else:
            gone[change.key] = value
    return {**tree, KEY: SCHEMA}, gone


def _has(tree: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _take(tree: dict[str, Any], key: str) -> Any:
    *groups, last = key.split(".")
    for group in groups:
        tree = tree[group]
    return tree.pop(last)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value
