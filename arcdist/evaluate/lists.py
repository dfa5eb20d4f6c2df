"""Protocols' lists: text files with an entry a line. What is wrong is refused with the file and the line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file without their ends, LF or CRLF, the last one with or without.

    Raises DataError for a file that cannot be read or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8 text; is it a list?") from None


def read_fields(
    path: str | Path, columns: str, *, separator: str | None = None, first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the fields of each entry, stripped; empty lines at the end are passed over.

    Args:
        columns: what an entry holds, for the count and for messages: ``"image template medium"``.
        separator: between fields; None for any white space.
        first_line: where entries begin, 2 where a header comes first.

    Raises DataError for a line with another number of fields.
    """
    count = len(columns.split())
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines[first_line - 1 :], first_line):
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) != count:
            raise DataError(f"{path}:{number}: {len(fields)} fields in {line[:80]!r}; {count} are needed: {columns}")
        yield number, fields


def integer(text: str, path: str | Path, number: int, column: str) -> int:
    """Return an integer of a list. Raises DataError for other text."""
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}:{number}: {column} is {text!r}, not an integer") from None


def real(text: str, path: str | Path, number: int, column: str) -> float:
    """Return a finite number of a list. Raises DataError for other text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}:{number}: {column} is {text!r}, not a finite number")
    return value


def read_integers(path: str | Path, columns: str, *, separator: str | None = None) -> npt.NDArray[np.int64]:
    """Return ``[n, columns]`` int64: a list of nothing but integers, for lists of millions of lines.

    Raises DataError for a line that holds anything else, and for an empty list.
    """
    try:
        table = np.loadtxt(path, dtype=np.int64, delimiter=separator, comments=None, ndmin=2)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError) as error:
        raise _bad_integer(path, columns, separator) or DataError(f"{path}: {error}") from None
    if table.shape[1] != len(columns.split()) or not len(table):
        raise _bad_integer(path, columns, separator) or DataError(f"{path}: holds no entry; {columns} are needed")
    return table


def _bad_integer(path: str | Path, columns: str, separator: str | None) -> DataError | None:
    """Return the error of the first bad line, found slowly: numpy counts rows, not lines."""
    try:
        for number, fields in read_fields(path, columns, separator=separator):
            for column, text in zip(columns.split(), fields):
                integer(text, path, number, column)
    except DataError as error:
        return error
    return None


def refuse_repeats(names: Sequence[str] | Sequence[int], path: str | Path, what: str, first_line: int = 1) -> None:
    """Raise DataError where a name is in a list twice; entry i stands on line ``first_line + i``."""
    line_of: dict[str | int, int] = {}
    for number, name in enumerate(names, first_line):
        first = line_of.setdefault(name, number)
        if first != number:
            raise DataError(f"{path}:{number}: {what} {name} is on line {first} already")
