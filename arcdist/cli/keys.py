"""The keys of a typed configuration: their help, and what was meant by one that does not exist."""

import difflib
import keyword
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

from arcdist.errors import ConfigError


@dataclass(frozen=True)
class Key:
    """A key as ``--help`` shows it."""

    name: str
    default: Any
    help: str
    kind: str = ""  # the one class that has it, where a part is of one of several


def keys_of(config_class: type, prefix: str = "") -> Iterator[Key]:
    """Yield every key of a configuration dataclass, nested ones with their path.

    Where a part has a ``name`` and is of one of several kinds, subclasses of what it is declared as, each kind's own
    keys follow, its name behind their help.
    """
    hints = typing.get_type_hints(config_class)
    for item in fields(typing.cast(Any, config_class)):
        kind = hints[item.name]
        if is_dataclass(kind):
            yield from _keys_of_part(typing.cast(type, kind), f"{prefix}{item.name}.")
            continue
        default = item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        yield Key(prefix + spelled(item.name), default, item.metadata.get("help", ""))


def spelled(field: str) -> str:
    """Return the key of a field: its name, but ``with`` of the field ``with_``, for Python keeps that word."""
    return field[:-1] if field.endswith("_") and keyword.iskeyword(field[:-1]) else field


def _keys_of_part(part: type, prefix: str) -> Iterator[Key]:
    shared = list(keys_of(part, prefix))
    yield from shared
    names = {key.name for key in shared}
    if f"{prefix}name" not in names:
        return
    for kind in _kinds(part):
        own = {key.name: key for key in keys_of(kind, prefix)}
        label = own[f"{prefix}name"].default
        for key in own.values():
            if key.name not in names:
                yield replace(key, help=f"{key.help} [{label}]", kind=kind.__name__)


def _kinds(part: type) -> Iterator[type]:
    """Yield the classes under a class that have none under them."""
    for kind in part.__subclasses__():
        yield from _kinds(kind) if kind.__subclasses__() else (kind,)


def unknown_key(key: str, config_class: type, owner: str = "") -> ConfigError:
    """Return the error for a key that the configuration does not have; it says which was meant.

    Args:
        owner: the class that lacks it; of a part of several kinds only this one's keys can have been meant.
    """
    every = list(keys_of(config_class))
    kinds = {"", owner} if any(known.kind == owner for known in every) else {known.kind for known in every}
    known = [known.name for known in every if known.kind in kinds]
    group = key.rpartition(".")[0]
    siblings = sorted(name.removeprefix(f"{group}.") for name in known if group and name.startswith(f"{group}."))
    by_last_word = {name.rpartition(".")[2]: name for name in reversed(known)}
    meant = difflib.get_close_matches(key, known, n=1) or [
        by_last_word[word] for word in difflib.get_close_matches(key.rpartition(".")[2], by_last_word, n=1)
    ]
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    listing = f" (known in {group}: {', '.join(siblings)})" if siblings else ""
    return ConfigError(f"{key}: no such key{hint}{listing}")


def help_lines(config_class: type) -> list[str]:
    """Return one line a key: name, default, meaning."""
    rows = [
        (key.name, f"needed: {key.help}")
        if key.default is MISSING
        else (f"{key.name}={written(key.default)}", key.help)
        for key in keys_of(config_class)
    ]
    width = min(46, max(len(left) for left, _ in rows))
    return [f"  {left:<{width}}  {meaning}" for left, meaning in rows]


def written(value: Any) -> str:
    """Return a default as it would be written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return str(value)
