"""Worker processes that fill batches in shared memory; nothing is sent to and fro but numbers.

Threads wait for each other where they need the interpreter, which is in turn for a tenth of their time; processes do
not. A worker is given pieces of batches by a pipe of its own and answers in their order. It is started by `spawn`, so
no thread, lock or GPU context is forked, and it imports no torch. It lives until its pipe is closed, and so no longer
than the process that started it; signals that tell a run to stop are for that process alone.
"""

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.shared_memory import SharedMemory

import cv2
import numpy as np

from arcdist.data.row_filler import RowFiller
from arcdist.errors import DataError

_NOT_FOR_WORKERS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_SHARED_FOLDER = "/dev/shm"  # where Linux keeps shared memory


@dataclass(frozen=True)
class _Piece:
    """Rows ``[start, stop)`` of a batch of images of a shape ``[b, h, w, 3]``, to be filled in a shared memory."""

    memory: str
    shape: tuple[int, int, int, int]
    start: int
    stop: int
    samples: np.ndarray
    positions: np.ndarray


class WorkerProcesses:
    """Processes that fill batches.

    Args:
        filler: what they do; each gets a copy, whose files it opens itself.
        workers: how many.

    Raises:
        DataError: here and from every method, where a worker ends by itself, or for too little shared memory.
    """

    def __init__(self, filler: RowFiller, workers: int) -> None:
        self._filler = filler
        self._free: list[SharedMemory] = []
        self._every: list[SharedMemory] = []
        self._given = 0  # pieces so far
        self._workers: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        atexit.register(self.stop)  # before multiprocessing waits for its processes
        try:
            self._start(workers)
        except OSError as error:
            self.stop()
            raise DataError(f"data.loader.workers: {workers}: so many processes cannot be started: {error}") from None
        except DataError:
            self.stop()
            raise

    def _start(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        for number in range(workers):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_work, args=(there,), name=f"loader {number}", daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))
        sent = ForkingPickler.dumps(self._filler)
        for process, connection in self._workers:
            try:
                connection.send_bytes(sent)
            except OSError:
                raise _ended(process) from None

    def begin(
        self, samples: np.ndarray, positions: np.ndarray, shape: tuple[int, int, int, int], pieces: list[slice]
    ) -> Callable[[np.ndarray, np.ndarray], None]:
        """Have a batch made, cut into pieces; what is returned waits for it and copies images and labels out."""
        memory = self._memory(_bytes(shape))
        workers = []
        for piece in pieces:
            process, connection = self._workers[self._given % len(self._workers)]
            self._given += 1
            try:
                connection.send(_Piece(memory.name, shape, piece.start, piece.stop, samples[piece], positions[piece]))
            except OSError:
                raise _ended(process) from None
            workers.append((process, connection))

        def copy_out(images: np.ndarray, labels: np.ndarray) -> None:
            for process, connection in workers:
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    raise _ended(process) from None
                if isinstance(answer, DataError):
                    raise answer
                self._filler.bad_records.learn(answer)
            images[:], labels[:] = _views(memory, shape)
            self._free.append(memory)

        return copy_out

    def stop(self) -> None:
        """End the processes, whatever they are at, and give the memory back."""
        atexit.unregister(self.stop)
        for process, connection in self._workers:
            process.kill()  # it has nothing to put in order
            process.join()
            connection.close()
        self._workers = []
        for memory in self._every:
            memory.close()
            memory.unlink()
        self._every, self._free = [], []

    def _memory(self, size: int) -> SharedMemory:
        """Return a shared memory of at least so many bytes that nobody uses."""
        for memory in self._free:
            if memory.size >= size:
                self._free.remove(memory)
                return memory
        if os.path.isdir(_SHARED_FOLDER):
            there = os.statvfs(_SHARED_FOLDER)
            left = there.f_bavail * there.f_frsize
            if left < size:  # else a worker would be ended by SIGBUS when it writes
                raise DataError(
                    f"data.loader.workers_are: 'processes': a batch takes {size >> 20} MiB of shared memory, and "
                    f"{_SHARED_FOLDER} has {left >> 20} left: mount it larger (docker run --shm-size), or take threads"
                )
        self._every.append(SharedMemory(create=True, size=size))
        return self._every[-1]


def _work(connection: Connection) -> None:
    """Fill pieces as what comes first says, until the pipe is closed; what becomes of each is the answer."""
    for name in _NOT_FOR_WORKERS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)
    logging.getLogger("arcdist").disabled = True  # bad records are in the answers
    memories: dict[str, SharedMemory] = {}
    failed = None
    with contextlib.suppress(EOFError, OSError):
        try:
            filler: RowFiller = connection.recv()
        except DataError as error:  # a file is gone, or is another one by now
            failed = error
        while True:
            piece: _Piece = connection.recv()
            if piece.memory not in memories:
                memories[piece.memory] = SharedMemory(piece.memory)
            connection.send(failed or _filled(filler, memories[piece.memory], piece))


def _filled(filler: RowFiller, memory: SharedMemory, piece: _Piece) -> "list[tuple[int, str]] | DataError":
    """Return the bad records that were passed over for the first time, or the error that ends the run."""
    images, labels = (part[piece.start : piece.stop] for part in _views(memory, piece.shape))
    try:
        filler.fill(images, labels, piece.samples, piece.positions)
    except DataError as error:
        return error
    return filler.bad_records.news()


def _bytes(shape: tuple[int, int, int, int]) -> int:
    return shape[0] * 8 + int(np.prod(shape))


def _views(memory: SharedMemory, shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 ``[b, h, w, 3]``, and the labels, int64 ``[b]``, that are in a memory."""
    images: np.ndarray = np.ndarray(shape, np.uint8, memory.buf, offset=shape[0] * 8)
    labels: np.ndarray = np.ndarray(shape[:1], np.int64, memory.buf)
    return images, labels


def _ended(process: multiprocessing.process.BaseProcess) -> DataError:
    process.join(timeout=5)
    code = process.exitcode
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    hint = "; the system kills what takes too much memory: fewer data.loader.workers" if code == -signal.SIGKILL else ""
    return DataError(f"worker process {process.pid} ({process.name}) of the loader {how}{hint}")
