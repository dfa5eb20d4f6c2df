"""``config.yaml``: the configuration that a run has left in its folder."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from arcdist.checkpoint.schema import migrated
from arcdist.errors import DataError

RUN_CONFIG = "config.yaml"


def read_run_config(folder: Path) -> dict[str, Any]:
    """Return a run's configuration as this arcdist would have written it; no reference in it is resolved.

    Errors: DataError where it cannot be read or is none; NewerError where a newer arcdist has written it.
    """
    path = folder / RUN_CONFIG
    try:
        value = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines() or [repr(error)]
        raise DataError(f"{path}: cannot be read: {reason[0]}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no object")
    return migrated({str(key): one for key, one in value.items()}, path)
