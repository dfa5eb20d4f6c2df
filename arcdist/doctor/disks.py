"""How fast the data can be read, and whether a run's folder takes what a run writes."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from arcdist.checkpoint.marker import CheckpointError
from arcdist.checkpoint.space import look_at
from arcdist.doctor.finding import Finding

_BLOCK, _MOST = 4 * 2**20, 256 * 2**20
_RECORD, _READS, _THREADS = 10 * 1024, 512, 8  # a face's JPEG; what a rank's threads read at a time
# What a GPU trains a second is in the thousands of faces; of two CPU cores it is below a thousand.
_WANTED_OF_GPU, _WANTED_OF_CPU = 4000, 500
_LOW_BYTES = 10e9


def look_at_data(path: str, local_gpus: int) -> Finding:
    """Return how fast a file of images, or the largest file of a folder, is read from where it lies.

    Args:
        path: of a .rec, of an image or of a folder of such.
        local_gpus: of this node, which read it at the same time; 0 on CPUs.
    """
    if not path:
        return Finding("data", "not looked at; data=PATH says where it is")
    largest = _largest(Path(path))
    if largest is None:
        advice = "is it mounted on this node, and spelled right?"
        return Finding("data", f"{path}: no file that can be read", "fault", advice)
    try:
        bytes_s, records_s = _sequential(largest), _random(largest)
    except OSError as error:
        return Finding("data", f"{largest}: {error.strerror}", "fault", "repair the disk, or copy the file anew")
    wanted = local_gpus * _WANTED_OF_GPU or _WANTED_OF_CPU
    found = f"{largest}: {bytes_s / 1e6:,.0f} MB/s in a row, {records_s:,.0f} faces of 10 KiB a second in any order"
    figures = {"mb_s": bytes_s / 1e6, "faces_s": records_s}
    if records_s < wanted:
        advice = f"{wanted:,} a second may be trained here: copy it to a local disk (data.cache.folder=…)"
        return Finding("data", found, "advice", advice, figures)
    return Finding("data", found, figures=figures)


def look_at_folder(path: str) -> Finding:
    """Return whether the folder of the runs, or the nearest one above it that exists, takes files and has room."""
    folder = next(one for one in (Path(path).absolute(), *Path(path).absolute().parents) if one.is_dir())
    try:
        began = time.monotonic()
        look_at(folder, 0, 0)
        took_s = time.monotonic() - began
    except CheckpointError as error:
        return Finding("run folder", str(error), "fault", "choose another folder=, or mount this one writable")
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {free / 1e9:,.0f} GB free, a small file is safe on it after {1000 * took_s:.0f} ms"
    figures = {"free_gb": free / 1e9, "safe_ms": 1000 * took_s}
    if free < _LOW_BYTES:
        advice = "a checkpoint of a large head has tens of GB, and some are kept: free some, or another folder="
        return Finding("run folder", found, "advice", advice, figures)
    return Finding("run folder", found, figures=figures)


def _largest(path: Path) -> Path | None:
    try:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        readable = [one for one in files if os.access(one, os.R_OK) and one.stat().st_size]
    except OSError:
        return None
    return max(readable, key=lambda one: one.stat().st_size, default=None)


def _forget(file: int) -> None:
    """Let the system drop what it holds of a file, so that the disk is measured; where it cannot, memory is."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _sequential(path: Path) -> float:
    """Return bytes a second of reading the file from its beginning."""
    file = os.open(path, os.O_RDONLY)
    try:
        _forget(file)
        offsets = range(0, min(os.fstat(file).st_size, _MOST) + _BLOCK, _BLOCK)
        began = time.monotonic()
        read = sum(len(os.pread(file, stop - start, start)) for start, stop in pairwise(offsets))
        return read / max(time.monotonic() - began, 1e-9)
    finally:
        os.close(file)


def _random(path: Path) -> float:
    """Return reads a second of a record's size, at drawn places, by several threads."""
    file = os.open(path, os.O_RDONLY)
    try:
        _forget(file)
        last = max(os.fstat(file).st_size - _RECORD, 1)
        offsets = np.random.default_rng(0).integers(0, last, _READS).tolist()
        with ThreadPoolExecutor(_THREADS) as pool:
            began = time.monotonic()
            list(pool.map(lambda offset: os.pread(file, _RECORD, offset), offsets))
            return _READS / max(time.monotonic() - began, 1e-9)
    finally:
        os.close(file)
