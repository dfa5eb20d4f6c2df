"""Arguments of the verbs that need no configuration groups: positions, key=value, ``--json PATH``."""

import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from arcdist.cli.keys import help_lines, keys_of, unknown_key
from arcdist.errors import ConfigError

T = TypeVar("T")


def parse(config_class: type[T], arguments: Sequence[str], positions: Sequence[str] = ()) -> T:
    """Return the configuration that the arguments say.

    Args:
        config_class: a dataclass; ``key=value`` sets its fields, ``--key`` sets a true, ``--key VALUE`` a value.
        arguments: of the command line, without the verb.
        positions: the fields that arguments without a ``=`` fill, in order.

    Errors: ConfigError for an unknown key, a value of the wrong type, too many positions, a key that is not given.
    """
    config = OmegaConf.structured(config_class)
    known = {key.name for key in keys_of(config_class)}
    left = list(positions)
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--") and "=" not in argument:
            key = argument[2:].replace("-", "_")
            if key not in known:
                raise unknown_key(key, config_class)
            key = _field(config, key)
            flag = isinstance(OmegaConf.select(config, key), bool)
            if not flag and not rest:
                raise ConfigError(f"--{key}: needs a value")
            _set(config, config_class, key, "true" if flag else rest.pop(0))
        elif re.match(r"(--)?[A-Za-z_][\w.]*=", argument) and not _is_file(argument):
            key, _, value = argument.removeprefix("--").partition("=")
            _set(config, config_class, _field(config, key), value)
        elif left:
            _set_position(config, left.pop(0), argument)
        else:
            named = " and ".join(positions) or "nothing"
            raise ConfigError(
                f"{argument!r}: is neither key=value nor expected here; what comes without a key: {named} (see --help)"
            )
    try:
        return OmegaConf.to_object(config)  # ty: ignore[invalid-explicit-return]
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}: is not given; see --help") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None


def _set_position(config: Any, key: str, text: str) -> None:
    try:
        OmegaConf.update(config, key, text)
    except OmegaConfBaseException as error:  # what OmegaConf would put other values into
        raise ConfigError(f"{key}: {text}: {str(error).splitlines()[0]}") from None


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except OSError:  # longer than a name may be, as a list of many sets is
        return False


def _field(config: Any, key: str) -> str:
    return f"{key}_" if keyword.iskeyword(key) and f"{key}_" in config else key


def _set(config: Any, config_class: type, key: str, text: str) -> None:
    if isinstance(OmegaConf.select(config, key), ListConfig) and not text.startswith("["):
        text = f"[{text}]"
    try:
        config.merge_with(OmegaConf.from_dotlist([f"{key}={text}"]))
    except (ConfigAttributeError, ConfigKeyError):
        raise unknown_key(key, config_class) from None
    except (OmegaConfBaseException, YAMLError) as error:
        advice = (
            "; a list is written a.bin,b.bin or [a.bin,b.bin]"
            if isinstance(OmegaConf.select(config, key), ListConfig)
            else ""
        )
        raise ConfigError(f"{key}={text}: {str(error).splitlines()[0]}{advice}") from None


def help_page(usage: str, config_class: type) -> str:
    """Return the page that ``--help`` prints."""
    return "\n".join([f"usage: {usage}", "", *help_lines(config_class)])


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether the arguments ask for help."""
    return any(argument in ("-h", "--help") for argument in arguments)
