"""Copies of files that lie on a network, on a disk of this machine, within a limit; its ranks share them.

An epoch reads every record once, in a random order. So whatever is kept, that part is read near by, and no rule that
throws records away for others could do better: blocks of each file are copied from its beginning on, until the limit is
reached, and stay. One process of the machine copies at a time, in a thread; the others read what is there, and the rest
from where it lies. A block gets its name when it is whole and on the disk, so a process that is killed leaves none that
is not.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcdist.errors import ConfigError

_log = logging.getLogger("arcdist")
_BLOCK_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 23
_LOOK_EVERY_S = 5.0


@dataclass
class LocalCacheConfig:
    """Whether and where .rec files are copied to."""

    folder: str = field(default="", metadata={"help": "folder of a local disk for copies of .rec files; empty: none"})
    limit_gib: float = field(default=0.0, metadata={"help": "GiB that the copies in it may take"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not 0 <= self.limit_gib < 1 << 20 or (self.folder and not self.limit_gib):
            raise ConfigError(f"data.cache.limit_gib: {self.limit_gib}: must be above 0, the GiB that copies may take")

    def build(self) -> "LocalCache | None":
        """Return the cache, None where there is none; ConfigError for a folder that cannot be written."""
        return LocalCache(Path(self.folder), int(self.limit_gib * (1 << 30))) if self.folder else None


class LocalCache:
    """A folder with copies of blocks of files.

    Args:
        folder: on a local disk; made if it is not there.
        limit_bytes: of all copies in it. To keep it, those of other files are removed, the longest unused first.
        block_bytes: of a copy.
    """

    def __init__(self, folder: Path, limit_bytes: int, block_bytes: int = _BLOCK_BYTES) -> None:
        self.folder, self.limit_bytes, self.block_bytes = folder, limit_bytes, block_bytes
        self._files: list[Copies] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lock").touch()
        except OSError as error:
            raise ConfigError(f"data.cache.folder: {folder}: cannot be written: {error.strerror}") from None

    def copies(self, path: Path) -> "Copies | None":
        """Return the copies of a file's blocks, as far as there are any; None for a file that cannot be read."""
        try:
            stat = path.stat()
        except OSError:  # said by who reads it
            return None
        about = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {self.block_bytes}"
        name = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
        self._files.append(Copies(self.folder / name, path, stat, self.block_bytes))
        return self._files[-1]

    def fill(self) -> threading.Thread:
        """Copy in a thread what has no copy yet, until all has or the limit is reached; it ends with the process."""
        thread = threading.Thread(target=self._fill, name="local cache", daemon=True)
        thread.start()
        return thread

    def _fill(self) -> None:
        try:
            with self._alone():
                for left in self.folder.glob("*.partial"):
                    left.unlink()
                for file in self._files:
                    for number in range(file.blocks):
                        if not file.touch(number):
                            if not self._make_room(file.bytes_of(number)):
                                return
                            file.copy(number)
        except OSError as error:
            _log.warning("%s: no more is copied: %s; the rest is read from where it lies", self.folder, error)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None, None, None]:
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, or the process ends
            yield

    def _make_room(self, needed: int) -> bool:
        """Return whether so many bytes more are within the limit, once copies of other files are gone."""
        found = [(path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.block")]
        total = sum(size for _, size, _ in found)
        ours = {file.stem.name for file in self._files}
        for _, size, path in sorted(found):
            if total + needed > self.limit_bytes and path.name.partition(".")[0] not in ours:
                path.unlink()
                total -= size
        return total + needed <= self.limit_bytes


class Copies:
    """The copies of one file's blocks: ``STEM.NUMBER.block``; threads share it."""

    def __init__(self, stem: Path, path: Path, stat: os.stat_result, block_bytes: int) -> None:
        self.stem, self._path, self._block_bytes = stem, path, block_bytes
        self._size, self._mtime_ns = stat.st_size, stat.st_mtime_ns
        self._found: dict[int, str] = {}  # opened for each read: a large set has more blocks than a process files
        self._looked = -_LOOK_EVERY_S
        self._lock = threading.Lock()

    @property
    def blocks(self) -> int:
        """The number of blocks that the file has."""
        return -(-self._size // self._block_bytes)

    def bytes_of(self, number: int) -> int:
        """Return the bytes of a block."""
        return min(self._block_bytes, self._size - number * self._block_bytes)

    def read(self, offset: int, length: int, /) -> "bytes | None":
        """Return exactly these bytes of the file, or None where no copy has them all."""
        number, start = divmod(offset, self._block_bytes)
        if number not in self._found:
            self._look()
        if number not in self._found or start + length > self._block_bytes:
            return None
        try:
            with open(self._found[number], "rb", buffering=0) as block:
                data = os.pread(block.fileno(), length, start)
        except OSError:  # removed meanwhile, or a disk of the machine that fails; the file itself is still there
            return None
        return data if len(data) == length else None

    def touch(self, number: int) -> bool:
        """Return whether a block has a copy, and note that it is used."""
        try:
            os.utime(self._name(number))
        except FileNotFoundError:
            return False
        return True

    def copy(self, number: int) -> None:
        """Copy a block; OSError where that fails, or the file is another one by now."""
        aside, left = self._name(number).with_suffix(".partial"), self.bytes_of(number)
        try:
            with open(self._path, "rb") as source, open(aside, "wb") as target:
                source.seek(number * self._block_bytes)
                while left:
                    chunk = source.read(min(left, _CHUNK_BYTES))
                    stat = os.fstat(source.fileno())
                    if not chunk or (stat.st_size, stat.st_mtime_ns) != (self._size, self._mtime_ns):
                        raise OSError(f"{self._path} has changed")
                    target.write(chunk)
                    left -= len(chunk)
                target.flush()
                os.fsync(target.fileno())
            aside.replace(self._name(number))
        finally:
            aside.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, which looks for the copies itself."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state, _lock=threading.Lock())

    def _name(self, number: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{number}.block")

    def _look(self) -> None:
        """Note the copies that have come since, once in a while."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S or not self._lock.acquire(blocking=False):
            return
        try:
            for path in self.stem.parent.glob(f"{self.stem.name}.*.block"):
                number = int(path.name.split(".")[1])
                if path.stat().st_size == self.bytes_of(number):
                    self._found[number] = str(path)
        except OSError as error:  # removed meanwhile
            _log.warning("%s: %s", self.stem.parent, error)
        finally:
            self._looked = time.monotonic()
            self._lock.release()
