"""A configuration value that is one path or a list of them, as on a command line: ``a.rec`` or ``[a.rec,b.rec]``."""

from typing import Any

from arcdist.errors import ConfigError


def listed(value: Any) -> list[str]:
    """Return the paths."""
    return [value] if isinstance(value, str) else list(value)


def check_paths(key: str, value: Any) -> None:
    """Raise ConfigError where a value is neither a path nor a list of paths."""
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(path, str) for path in value)):
        raise ConfigError(f"{key}: {value!r}: must be a path, or a list of them: {key}=[a.rec,b.rec]")
