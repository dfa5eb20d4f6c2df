"""LFW's pairs.txt: which two images of which people make a pair."""

from pathlib import Path

from arcdist.errors import DataError

Image = tuple[str, int]


def read_pairs(path: Path) -> list[tuple[Image, Image, bool]]:
    """Return ``(first, second, genuine)`` for each line of LFW's pairs.txt, an image being (name, number).

    The header (folds and pairs of a fold, of one kind; or one number of pairs) may be missing.

    Errors: DataError for a line that is neither a header nor a pair, with its number, and for a list that is not as
        long as its header says.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    pairs: list[tuple[Image, Image, bool]] = []
    expected = 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if number == 1 and len(words) <= 2 and all(map(_is_number, words)):
            folds, each = (1, *map(int, words))[-2:]
            expected = 2 * folds * each
        elif len(words) == 3 and _is_number(words[1]) and _is_number(words[2]):
            pairs.append(((words[0], int(words[1])), (words[0], int(words[2])), True))
        elif len(words) == 4 and _is_number(words[1]) and _is_number(words[3]):
            pairs.append(((words[0], int(words[1])), (words[2], int(words[3])), False))
        else:
            raise DataError(f"{path}: line {number}: neither NAME n1 n2 nor NAME1 n1 NAME2 n2: {line[:80]!r}")
    if not pairs:
        raise DataError(f"{path}: holds no pair")
    if expected not in (0, len(pairs)):
        raise DataError(f"{path}: {len(pairs)} pairs, but its first line {lines[0]!r} says {expected}; is it whole?")
    return pairs


def identities_of(path: Path) -> set[str]:
    """Return the names that occur in a pairs.txt: who must not be trained on."""
    return {name for first, second, _ in read_pairs(path) for name, _ in (first, second)}


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10
