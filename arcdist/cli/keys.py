"""The keys of a typed configuration: their help, and what was meant by one that does not exist."""

import difflib
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from arcdist.errors import ConfigError


@dataclass(frozen=True)
class Key:
    """A key as ``--help`` shows it."""

    name: str
    default: Any
    help: str


def keys_of(config_class: type, prefix: str = "") -> Iterator[Key]:
    """Yield every key of a configuration dataclass, nested ones with their path."""
    hints = typing.get_type_hints(config_class)
    for item in fields(typing.cast(Any, config_class)):
        kind = hints[item.name]
        if is_dataclass(kind):
            yield from keys_of(typing.cast(type, kind), f"{prefix}{item.name}.")
            continue
        default = item.default if item.default is not MISSING else None
        if item.default_factory is not MISSING:
            default = item.default_factory()
        yield Key(prefix + item.name, default, item.metadata.get("help", ""))


def unknown_key(key: str, config_class: type) -> ConfigError:
    """Return the error for a key that the configuration does not have; it says which was meant."""
    known = [known.name for known in keys_of(config_class)]
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
    rows = [(f"{key.name}={_text(key.default)}", key.help) for key in keys_of(config_class)]
    width = min(46, max(len(left) for left, _ in rows))
    return [f"  {left:<{width}}  {meaning}" for left, meaning in rows]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return str(value)
