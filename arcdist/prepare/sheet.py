"""Sheets of pictures: framed tiles side by side, rows with words before them."""

from collections.abc import Sequence

import cv2
import numpy as np

from arcdist.data.decode import decode
from arcdist.errors import DataError

WHITE, GREEN, RED = (255, 255, 255), (60, 160, 80), (200, 60, 60)
_UNREADABLE = (90, 0, 60)
_TILE_PX, _GAP_PX = 112, 4
_WORDS_PX, _LINE_PX, _FONT_SCALE = 190, 22, 0.45

Color = tuple[int, int, int]


def tile(payload: bytes, name: str, frame: Color = WHITE) -> np.ndarray:
    """Return an encoded image on a frame of that color, uint8 ``[120, 120, 3]``; dark where it cannot be decoded."""
    try:
        image = cv2.resize(decode(payload, name), (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_AREA)
    except DataError:
        image = np.full((_TILE_PX, _TILE_PX, 3), _UNREADABLE, np.uint8)
    return cv2.copyMakeBorder(image, _GAP_PX, _GAP_PX, _GAP_PX, _GAP_PX, cv2.BORDER_CONSTANT, value=frame)


def grid(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Return tiles of one size, one or more, as an image that is about square."""
    height, width, _ = tiles[0].shape
    columns = max(1, round((len(tiles) * height / width) ** 0.5))
    blank = np.full_like(tiles[0], 255)
    rows = [[*tiles[row : row + columns]] for row in range(0, len(tiles), columns)]
    return np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])


def captioned_rows(rows: Sequence[tuple[Sequence[str], Sequence[np.ndarray]]]) -> np.ndarray:
    """Return rows one below another, one or more, each the lines of words and then the tiles; ``?`` for non-ASCII."""
    most = max(len(tiles) for _, tiles in rows)
    side = _TILE_PX + 2 * _GAP_PX
    lines = []
    for words, tiles in rows:
        caption = np.full((side, _WORDS_PX, 3), 255, np.uint8)
        for number, line in enumerate(words):
            text = line.encode("ascii", "replace").decode()
            place = (_GAP_PX, (number + 1) * _LINE_PX)
            cv2.putText(caption, text, place, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
        blanks = [np.full((side, side, 3), 255, np.uint8)] * (most - len(tiles))
        lines.append(np.hstack([caption, *tiles, *blanks]))
    return np.vstack(lines)
