"""A large index, parsed once on a node and then mapped: opened at once, and held in memory once for all ranks.

The file holds a head, then all keys, then all offsets, int64 in the machine's own byte order. It lies beside the .idx,
or, where that folder cannot be written, in the user's cache folder; it is made again where the .idx or the .rec has
changed. A process that finds another at work waits for it.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from arcdist.data.record_index import RecordIndex, map_index

LEAST_BYTES = 1 << 24
"""Of an .idx that is cached: about a million lines, which take a tenth of a second to parse."""
_log = logging.getLogger("arcdist")
_VERSION = 1
_HEAD_BYTES = 40  # version, records; of the .idx its bytes and time in ns; bytes of the .rec


def cached_index(path: Path, rec_bytes: int, read: Callable[[], RecordIndex]) -> RecordIndex:
    """Return what ``read`` returns for the index at ``path``, from the cache if that is of the same two files.

    Where no cache can be written, which a warning says, each process parses the index and holds it.
    """
    stat = path.stat()
    try:
        return _through_cache(path, (stat.st_size, stat.st_mtime_ns, rec_bytes), read)
    except OSError as error:
        _log.warning("%s: is parsed by every process, since no cache of it can be kept: %s", path, error)
        return read()


def _through_cache(path: Path, about: tuple[int, int, int], read: Callable[[], RecordIndex]) -> RecordIndex:
    """Return the index from the cache, which is made where there is none; OSError where it cannot be."""
    cache = _place(path)
    if (found := _open(cache, path, about)) is not None:
        return found
    with _alone(cache):
        if (found := _open(cache, path, about)) is not None:  # made by another process in the meantime
            return found
        index = read()
        aside = cache.with_name(f"{cache.name}.{os.getpid()}.partial")
        try:
            with open(aside, "wb") as file:
                np.array([_VERSION, len(index), *about], np.int64).tofile(file)
                index.keys.tofile(file)
                index.offsets.tofile(file)
            aside.replace(cache)
        finally:
            aside.unlink(missing_ok=True)
    found = _open(cache, path, about)
    return index if found is None else found


def _place(path: Path) -> Path:
    if os.access(path.parent, os.W_OK):
        return path.with_name(path.name + ".cache")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arcdist"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}.idx.cache"


def _open(cache: Path, path: Path, about: tuple[int, int, int]) -> "RecordIndex | None":
    """Return the cached index, mapped; None where there is none, or it is of other files."""
    try:
        size = cache.stat().st_size
        head = np.fromfile(cache, np.int64, _HEAD_BYTES // 8).tolist()
    except OSError:
        return None
    if len(head) * 8 < _HEAD_BYTES or head[0] != _VERSION or tuple(head[2:]) != about:
        return None
    if size != _HEAD_BYTES + 16 * head[1]:
        return None
    return map_index(cache, path, head[1])


@contextlib.contextmanager
def _alone(cache: Path) -> Generator[None, None, None]:
    with open(cache.with_name(cache.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, or the process ends
        yield
