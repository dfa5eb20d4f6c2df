"""The names of a set's classes, by which several sets tell that they have somebody in common."""

import os
from pathlib import Path

from arcdist.errors import DataError


def read_identities(path: "str | os.PathLike[str]", num_classes: int) -> list[str]:
    """Return the name of each class of a set.

    A line is ``label<TAB>name``, and what follows is passed over; or, of a ``.lst`` as ``arcdist pack`` leaves it,
    ``key<TAB>label<TAB>FOLDER/FILE``, and the folder is the name. Two labels may have one name: they are one identity
    under two labels.

    Args:
        path: the text file.
        num_classes: of the set; each must have a name.

    Raises:
        DataError: a file that cannot be read, a line of another form, a label that is no class or has two names, a
            class without a name.
    """
    path = Path(path)
    names = [""] * num_classes
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        words = line.split("\t")
        try:
            label = int(words[1 if path.suffix == ".lst" else 0])
            name = words[2].rpartition("/")[0] if path.suffix == ".lst" else words[1].strip()
        except (ValueError, IndexError):
            raise DataError(f"{path}: line {number}: is {line[:80]!r}, not a label and a name, tab-separated") from None
        if path.suffix == ".lst" and name.endswith(".rec"):  # as a copy of a set without names has it
            raise DataError(f"{path}: line {number}: {words[2]!r} names no person; give lines of label<TAB>name")
        if not 0 <= label < num_classes:
            raise DataError(f"{path}: line {number}: label {label} is no class of 0..{num_classes - 1} of its set")
        if not name or names[label] not in ("", name):
            raise DataError(f"{path}: line {number}: class {label} is named {name!r} after {names[label]!r}")
        names[label] = name
    if "" in names:
        raise DataError(f"{path}: has no name for class {names.index('')}; the set has {num_classes} classes")
    return names
