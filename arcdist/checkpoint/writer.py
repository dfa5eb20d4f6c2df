"""torch.distributed.checkpoint's files, written so that what is on the disk is known to be what was meant."""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.filesystem import FileSystem

from arcdist.checkpoint.folder import WEIGHTS, sha256_of

# Notes to its own developers. Not undone after a save, since filters are of the process and saves of a thread.
warnings.filterwarnings("ignore", module=r"torch\.distributed\.checkpoint")


class CheckedWriter(dcp.FileSystemWriter):
    """Writes this rank's part of a checkpoint, from tensors on the CPU.

    Args:
        folder: that does not exist, or that only other ranks of the same checkpoint write into.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sync_files=False, per_thread_copy_ahead=0, overwrite=False)
        self.fs: CheckedFiles = CheckedFiles()

    def write(self, tensors: Mapping[str, Tensor], group: ProcessGroup | None) -> None:
        """Write tensors, DTensors where they are sharded; every rank of the group calls it.

        Args:
            tensors: by name. One that is no DTensor may be given by any rank alone.
            group: of gloo; None for a world of one.
        """
        dcp.save(dict(tensors), storage_writer=self, process_group=group, no_dist=group is None)

    def write_weights(self, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write the backbone alone, for others to read; one rank calls it."""
        content = {name: tensor.contiguous() for name, tensor in weights.items()}
        with self.fs.create_stream(Path(self.path) / WEIGHTS, "wb") as stream:
            stream.write(safetensors.torch.save(content, dict(metadata)))

    def check(self) -> dict[str, dict[str, Any]]:
        """Read the files of this rank back, and return size and checksum of each by its name.

        Errors: OSError where the disk gives other bytes than it was given.
        """
        return self.fs.check()


class CheckedFiles(FileSystem):
    """Files on a disk whose bytes are summed on their way there."""

    def __init__(self) -> None:
        self._meant: dict[Path, dict[str, Any]] = {}

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase]:
        """Open a new file; at the end of the context it is on the disk."""
        with Path(path).open(mode) as file:
            stream = _SummingStream(file)
            yield stream
            file.flush()
            os.fsync(file.fileno())
            self._meant[Path(path)] = {"bytes": stream.tell(), "sha256": stream.digest.hexdigest()}

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Give a file that was written here another name."""
        super().rename(path, new_path)
        self._meant[Path(new_path)] = self._meant.pop(Path(path))

    def check(self) -> dict[str, dict[str, Any]]:
        """Return size and checksum of each file by its name, having found them on the disk too.

        Errors: OSError where a file is not what was written.
        """
        for path, meant in self._meant.items():
            _forget(path)
            if path.stat().st_size != meant["bytes"] or sha256_of(path) != meant["sha256"]:
                raise OSError(f"{path.name}: the disk gives other bytes than it was given")
        return {path.name: meant for path, meant in self._meant.items()}


class _SummingStream(io.RawIOBase):
    """Hands bytes on to a file, which stays open when this is closed: it is flushed to the disk first."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._bytes, self.digest = file, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        count = self._file.write(data)
        self.digest.update(data)
        self._bytes += count
        return count

    def tell(self) -> int:
        return self._bytes


def _forget(path: Path) -> None:
    """Let the next reader have a file from the disk, where the system can; what is not on the disk yet stays."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
