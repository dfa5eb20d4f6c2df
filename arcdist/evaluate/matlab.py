"""MATLAB 5.0 files, as benchmarks give out their lists: matrices of numbers, texts, cells and structures of them.

Source: MathWorks, "MAT-File Format" (Level 5). Objects, sparse and complex matrices are not read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError

Value: TypeAlias = "npt.NDArray[np.generic] | str | list[Value] | dict[str, Value]"

_HEADER_BYTES = 128
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCTURE, _CHAR, _FIRST_NUMERIC, _COMPLEX = 1, 2, 4, 6, 0x0800


def read_mat(path: str | Path) -> dict[str, Value]:
    """Return the variables of a file by name: arrays, texts, and cells as flat lists, column by column.

    A structure is a dict of its fields, in order; an array of them a flat list of dicts.

    Numbers are of the type in which they were stored, which may be narrower than MATLAB's class.

    Raises DataError for a file that is missing, damaged, of another version, or holds what is not read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if content[:10] != b"MATLAB 5.0" or content[126:128] != b"IM":
        raise DataError(f"{path}: is no little-endian MATLAB 5.0 file; save it with '-v7'")
    try:
        return dict(_matrix(data) for kind, data in _elements(content[_HEADER_BYTES:]) if kind == _MATRIX)
    except (struct.error, zlib.error, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: damaged, or holds what is not read: {error}") from None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each element; a compressed one as what it holds."""
    start = 0
    while start < len(data):
        kind, size = struct.unpack_from("<2I", data, start)
        if kind >> 16:  # a small element: its size is above its kind, its content in the 4 bytes after them
            kind, size, begin, stop = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        else:
            begin = start + 8
            stop = begin + size + (-size % 8 if kind != _COMPRESSED else 0)
        content = data[begin : begin + size]
        if len(content) != size:
            raise ValueError(f"an element of {size} bytes is cut short")
        if kind == _COMPRESSED:
            yield from _elements(zlib.decompress(content))
        else:
            yield kind, content
        start = stop


def _matrix(data: bytes) -> tuple[str, Value]:
    elements = list(_elements(data))
    flags, shape, name = (content for _, content in elements[:3])
    (word,) = struct.unpack_from("<I", flags)
    kind, dims = word & 0xFF, tuple(np.frombuffer(shape, "<i4").tolist())
    if kind == _CELL:
        cells: Value = [_matrix(content)[1] for _, content in elements[3:]]
        if len(cells) != math.prod(dims):
            raise ValueError(f"a cell of shape {dims} has {len(cells)} entries")
        return name.decode(), cells
    if kind == _STRUCTURE:
        return name.decode(), _structures(elements[3:], math.prod(dims))
    stored, content = elements[3]
    if kind == _CHAR:
        return name.decode(), content.decode(_TEXTS[stored])
    if kind < _FIRST_NUMERIC or word & _COMPLEX:
        raise ValueError(f"a matrix of class {kind}")
    return name.decode(), np.frombuffer(content, f"<{_NUMBERS[stored]}").reshape(dims, order="F")


def _structures(elements: list[tuple[int, bytes]], count: int) -> Value:
    """Return ``count`` structures, one as a dict, others as a list; their elements begin with the names of fields."""
    (length,) = struct.unpack("<i", elements[0][1])
    text = elements[1][1]
    fields = [text[start : start + length].split(b"\0")[0].decode() for start in range(0, len(text), length)]
    values = [_matrix(content)[1] for _, content in elements[2:]]
    if len(values) != count * len(fields):
        raise ValueError(f"{count} structures of {len(fields)} fields have {len(values)} values")
    found: list[Value] = [
        dict(zip(fields, values[start : start + len(fields)])) for start in range(0, len(values), len(fields))
    ]
    return found[0] if count == 1 and found else found
