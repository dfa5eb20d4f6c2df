"""The reference of every key of a run and of every choice of configs/, from where `arcdist train --help` has them."""

import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from inspect import getdoc
from typing import Any

import yaml
from tables import table

from arcdist.checkpoint.schema import CHANGES, SCHEMA, sentence
from arcdist.cli.compose import config_folder, groups
from arcdist.cli.keys import Key, keys_of, written
from arcdist.margins import MARGINS
from arcdist.train.config import TrainConfig

_HEAD = """# Configuration

A run is composed of a choice in each group, of a recipe, and of the keys on the command line, which count most:
`arcdist train recipe=ms1mv2_r50 backbone=r100 optim.lr=0.2`. `arcdist train … --cfg job` prints what results, and does
nothing; `arcdist train --help` prints this page's keys. A key that there is not, and a value that cannot be, are
refused before anything starts. This page is made of the dataclasses and of the files in `configs/`.

## Choices

`GROUP=CHOICE` on the command line; what is chosen sets keys, and keys named after it outweigh it.
"""
_OF_GROUP = {
    "augment": "What is done to the images of `data.augment`.",
    "backbone": "The network, by arcface_torch's names; [Python](api.md) has their builders.",
    "data": "A set of the field, and what it must hold; [Data](data.md) has how others are used.",
    "losses": "Beside the margin softmax; several are `losses=[center,intra]`.",
    "margin": "Each chooses one of the kinds below, with the numbers of its paper.",
    "optim": "The optimizer and its usual numbers.",
    "recipe": "All of it at once: [recipes](recipes.md) has them with what they reach.",
}


_SCHEMA = f"""## Schema

These keys are schema {SCHEMA} of the configuration. A run writes that down in its `config.yaml` and in its checkpoints,
and a recipe of your own may say `schema: {SCHEMA}`: a later arcdist then tells what has changed since. A key of an
older schema, on the command line or in a file, is refused with what it is now. A run that an older arcdist has left
goes on, and is evaluated, exported and reported, under the keys of today; one that a newer arcdist has left is refused.
"""


def configuration_page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for group, choices in groups().items():
        parts.append(f"### {group}\n\n{_OF_GROUP.get(group, '')}\n")
        if group in ("backbone", "recipe"):
            parts.append(", ".join(f"`{choice}`" for choice in choices) + "\n")
        else:
            parts.append(table(("choice", "sets", "about"), (_choice(group, choice) for choice in choices)))
    parts.append("## Keys\n")
    keys = list(keys_of(TrainConfig))
    for prefix, part in _parts(TrainConfig, ""):
        title = prefix.removesuffix(".") or "The run"
        own = [key for key in keys if not key.kind and key.name.rpartition(".")[0] == prefix.removesuffix(".")]
        parts.append(f"### {title}\n\n{_first_line(part)}\n\n{_key_table(own)}")
        if title == "margin":
            parts.extend(_margin_kinds(keys))
    changes = ((f"{change.since}", f"`{change.key}`", sentence(change)) for change in CHANGES)
    parts.append(f"{_SCHEMA}\n{table(('since schema', 'key', 'change'), changes)}")
    return "\n".join(parts)


def _parts(config_class: Any, prefix: str) -> Iterator[tuple[str, type]]:
    """Yield the dataclasses of a tree of them, each with what its keys begin with, an outer one first."""
    yield prefix, config_class
    hints = typing.get_type_hints(config_class)
    for item in fields(config_class):
        if is_dataclass(hints[item.name]):
            yield from _parts(hints[item.name], f"{prefix}{item.name}.")


def _margin_kinds(keys: list[Key]) -> Iterator[str]:
    for name, kind in MARGINS.items():
        own = [key for key in keys if key.kind == kind.__name__]
        yield f"#### margin: {name}\n\n{_first_line(kind)}\n"
        yield _key_table(own, f" [{name}]") if own else "It has no keys of its own.\n"


def _choice(group: str, choice: str) -> tuple[str, str, str]:
    """Return a file of a group: its name, the keys that it sets, and its comment."""
    text = (config_folder() / group / f"{choice}.yaml").read_text(encoding="utf-8")
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    values = yaml.safe_load(text)
    kind = "".join(str(one) for one in values.pop("defaults", [])).partition("schema/")[2].partition("@")[0]
    kinds = [f"`name: {kind}`"] if kind else []
    return (
        f"`{choice}`",
        ", ".join(kinds + [f"`{key}: {_plain(value)}`" for key, value in values.items()]),
        " ".join(comments),
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
    return written(value)


def _key_table(keys: list[Key], suffix: str = "") -> str:
    rows = (
        (f"`{key.name}`", "needed" if key.default is MISSING else _default(key), key.help.removesuffix(suffix))
        for key in keys
    )
    return table(("key", "default", "meaning"), rows)


def _default(key: Key) -> str:
    text = written(key.default)
    return f"`{text}`" if text else "empty"


def _first_line(part: type) -> str:
    return (getdoc(part) or "").partition("\n")[0]
