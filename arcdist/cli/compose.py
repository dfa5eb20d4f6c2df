"""The configuration of a run, composed by Hydra from groups, recipes and the command line, and checked."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, YAMLError

import arcdist
from arcdist.checkpoint.schema import about_old_key, about_tree
from arcdist.cli.keys import keys_of, unknown_key
from arcdist.errors import ConfigError
from arcdist.margins import MARGINS
from arcdist.train.config import TrainConfig

ConfigStore.instance().store("schema", TrainConfig(margin=MISSING))  # which one, its group says
for name, kind in MARGINS.items():
    ConfigStore.instance().store(name, kind, group="margin/schema")

_MOST_VALUES = 1000  # of a sweep over one key
_MOST_ALIASES = 20  # of a file; one of which each doubles the last makes a million times as much of it
_PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")  # launchers and sweepers
_LOGGING = ("logging.StreamHandler", "logging.FileHandler", "colorlog.ColoredFormatter")


def config_folder() -> Path:
    """Return the folder of configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(arcdist.__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def groups() -> dict[str, list[str]]:
    """Return the configuration groups and what may be chosen in each."""
    found = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(config_folder().iterdir())
        if folder.is_dir()
    }
    return {group: options for group, options in found.items() if options}


def compose_config(overrides: Sequence[str]) -> TrainConfig:
    """Return the configuration that these overrides give; values are not checked yet.

    Errors: ConfigError for a key, a type or a group's option that cannot be; it says which was meant. Also for epochs
        that a recipe's steps would pass over.
    """
    GlobalHydra.instance().clear()
    _refuse_aliases(overrides)
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            composed = compose("train", overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError, OSError, YAMLError) as error:
        raise _of_another_schema(error, overrides) or _explained(error) from None
    except RecursionError:
        raise ConfigError("a configuration file is nested too deep, or its defaults name itself") from None
    hydra = OmegaConf.to_container(composed.hydra)
    _refuse_code(hydra, "hydra")
    with open_dict(composed):
        del composed["hydra"]
    try:
        config = typed(composed)
    except OmegaConfBaseException as error:
        raise _explained(error) from None
    _refuse_idle_epochs(overrides, config)
    return config


def _refuse_idle_epochs(overrides: Sequence[str], config: TrainConfig) -> None:
    """Raise ConfigError where an override gives epochs, and steps that none of them gives count instead."""
    given = {one.lstrip("+").partition("=")[0] for one in overrides}
    if "train.epochs" in given and "train.steps" not in given and config.train.steps > 0:
        raise ConfigError(
            f"train.epochs: {config.train.epochs:g}: would change nothing, since the recipe's train.steps="
            f"{config.train.steps} counts instead; add train.steps=0, and look at optim.schedule, which may be in steps"
        )


def _refuse_aliases(overrides: Sequence[str]) -> None:
    """Raise ConfigError where a file of a folder that an override names would grow beyond measure as it is read."""
    for path in sorted(path for folder in _own_folders(overrides) for path in folder.rglob("*.yaml")):
        try:
            with path.open() as file:
                aliases = sum(isinstance(event, AliasEvent) for event in yaml.parse(file))
        except (OSError, ValueError, YAMLError):
            continue  # said, if it is chosen, when it is
        if aliases > _MOST_ALIASES:
            raise ConfigError(f"{path}: has {aliases} YAML aliases; write out what they stand for")


def _own_folders(overrides: Sequence[str]) -> list[Path]:
    """Return the folders of configuration files that overrides name."""
    searched = " ".join(one for one in overrides if "hydra.searchpath=" in one)
    return [Path(folder) for folder in re.findall(r"file://([^\],'\"]+)", searched)]


def _of_another_schema(error: Exception, overrides: Sequence[str]) -> ConfigError | None:
    """Return what a file that cannot be composed has of another schema, if it is one of the user's."""
    named = re.search(r"In '([^']+)'", str(error))
    for path in [folder / f"{named[1]}.yaml" for folder in _own_folders(overrides)] if named else []:
        try:
            text = path.read_text(encoding="utf-8")
            tree = yaml.safe_load(text)
        except (OSError, ValueError, RecursionError, YAMLError):
            continue
        if "@package _global_" not in text:
            tree = {path.parent.name: tree}
        if isinstance(tree, dict) and (fault := about_tree(tree)):
            return ConfigError(f"{path}: {fault}")
    return None


def _refuse_code(node: Any, key: str) -> None:
    """Raise ConfigError where Hydra's own part of a configuration, unresolved, names what it would import and call."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        where = f"{key}.{name}"
        plugin = name == "_target_" and str(value).startswith(_PLUGINS)
        calls = name in ("_target_", "class", "()") and not plugin and value not in _LOGGING
        if calls or (where == "hydra.callbacks" and value):
            raise ConfigError(f"{where}: {value!r}: a configuration may not name code; take it out")
        _refuse_code(value, where)


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise ConfigError if one of the overrides cannot be right; of a sweep every value is looked at."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise _explained(error) from None
    known = {key.name for key in keys_of(TrainConfig)} | set(groups())
    for item in parsed:  # Hydra lets +key=value add what the configuration does not have
        key = item.key_or_group
        added = item.is_add() or item.is_force_add()
        inside = key.rpartition(".")[0] in known and not key.rpartition(".")[2].isdigit()  # of what has no keys in it
        if (added or inside) and key not in known and not key.startswith("hydra"):
            raise _no_such_key(key)
        value = item.value()
        names = value if key == "losses" and isinstance(value, list) else [value]
        chosen = item.is_delete() or item.is_sweep_override() or all(isinstance(name, str) for name in names)
        if key in groups() and not chosen:
            raise ConfigError(f"{item.input_line}: choose one of {', '.join(groups()[key])}")
    plain = [item.input_line for item in parsed if not item.is_sweep_override() and item.input_line]
    alternatives = [
        f"{item.get_key_element()}={value}" for item in parsed if item.is_sweep_override() for value in _values(item)
    ]
    for extra in [[one] for one in alternatives] or [[]]:
        compose_config([*plain, *extra]).validate()


def _values(sweep: Override) -> list[str]:
    """Return what a sweep gives its key, one value after another."""
    value = sweep.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        if not abs(value.stop - value.start) <= _MOST_VALUES * abs(value.step):
            raise ConfigError(f"{sweep.input_line}: a sweep has at most {_MOST_VALUES:,} runs")
    try:
        return list(sweep.sweep_string_iterator())
    except HydraException:
        raise ConfigError(f"{sweep.input_line}: a sweep is a,b or choice(a,b) or range(1,5)") from None


def typed(composed: DictConfig) -> TrainConfig:
    """Return what Hydra composed as the dataclass that it was composed over."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, TrainConfig)
    kind = type(config.margin)
    for key in composed.margin:  # +key=value may have given it one of another margin's
        if key not in kind.__dataclass_fields__:
            raise _no_such_key(f"margin.{key}", kind.__name__)
    return config


def _no_such_key(key: str, owner: str = "") -> ConfigError:
    """Return the error for a key that there is not; of one that there was, it says what it is now."""
    old = about_old_key(key)
    return ConfigError(old) if old else unknown_key(key, TrainConfig, owner)


def _explained(error: Exception) -> ConfigError:
    """Return Hydra's or OmegaConf's error in the words of the configuration."""
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return ConfigError(f"{error.override}: {reason}; close every bracket, and quote what is special")
    if isinstance(error, YAMLError):
        return ConfigError(" ".join(str(error).split()))
    text = str(error)
    reason = (str(error.__cause__ or error).splitlines() or [repr(error)])[0]
    if re.match(r"In '.*composing config:\n", text):
        reason = text.splitlines()[1]
    if match := re.search(r"Could not override '([^']+)'", text):
        is_root = match[1].split(".")[0] in TrainConfig.__dataclass_fields__
        if not is_root or re.search(r"not in (struct|')", reason):
            meant = get_close_matches(match[1], groups(), n=1)
            if meant and "." not in match[1]:
                return ConfigError(f"{match[1]}: no such group; did you mean {meant[0]!r}?")
            owner = re.search(r"not in '(\w+)'", reason)
            return _no_such_key(match[1], owner[1] if owner else "")
        if old := about_old_key(match[1]):
            return ConfigError(old)
        return ConfigError(f"{match[1]}: {reason}")
    match = re.search(r"In '([^']+)'[\s\S]*full_key: (\S+)", text)
    if match and not re.search(r"not in (struct|')", reason):
        return ConfigError(f"{match[2]}: as {match[1]} has it: {reason}")
    if match:
        return ConfigError(
            f"{match[2]}: set by {match[1]}, but the chosen {match[2].partition('.')[0]} has no such key"
        )
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        known = groups().get(group, [])
        hint = "".join(f"; did you mean {meant!r}?" for meant in get_close_matches(option, known, n=1))
        return ConfigError(f"{group}={option}: no such choice{hint} (known: {', '.join(known)})")
    if match := re.search(r"Error merging override (\S+)", text):
        if old := about_old_key(match[1].lstrip("+").partition("=")[0]):
            return ConfigError(old)
        return ConfigError(f"{match[1]}: {reason}")
    first = text.partition("\n")[0]
    return ConfigError(reason if first in ("", reason) else f"{first} {reason}")
