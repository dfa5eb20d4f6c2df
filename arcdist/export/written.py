"""Files that are there whole or not at all."""

import contextlib
from collections.abc import Generator
from pathlib import Path

from safetensors import SafetensorError

from arcdist.errors import DataError


@contextlib.contextmanager
def written(path: Path) -> Generator[Path]:
    """Give the path of a file to write; at the end of the block it has the name ``path``, and is gone if that fails.

    Errors: DataError where the folder cannot be written.
    """
    aside = path.parent / f".partial-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
