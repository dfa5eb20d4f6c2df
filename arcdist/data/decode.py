"""Encoded images to pixels: JPEG by libjpeg-turbo (simplejpeg), PNG, BMP and WebP by OpenCV.

The size is read from the header before anything is decoded, so that a damaged or hostile file costs neither gigabytes
nor seconds. JPEG pixels are bit-identical with Pillow's.
"""

import contextlib
import struct
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg

from arcdist.errors import DataError

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(payload: bytes, name: str, size: "tuple[int, int] | None" = None, max_pixels: int = 1 << 26) -> np.ndarray:
    """Return the image, RGB, uint8 ``[H, W, 3]``, whatever its encoding's channels and depth; Exif turns nothing.

    Args:
        payload: an encoded JPEG, PNG, BMP or WebP.
        name: the image's, for messages.
        size: the (height, width) that it must have.
        max_pixels: a header that states more is refused.

    Raises:
        DataError: another format, damaged bytes, a JPEG that is cut short, or a wrong size.
    """
    height, width = check_header(payload, name, size, max_pixels)
    try:
        image = simplejpeg.decode_jpeg(payload, "RGB") if payload.startswith(_JPEG) else _by_opencv(payload)
    except (ValueError, cv2.error) as error:
        raise DataError(f"{name}: is damaged: {str(error).strip()}") from None
    if image.shape != (height, width, 3):
        raise DataError(f"{name}: is damaged: the header states {height}×{width} pixels, the image has another size")
    return image


def decode_into(image: np.ndarray, payload: bytes, name: Callable[[], str]) -> None:
    """Write the image into ``image``, uint8 ``[H, W, 3]`` in one piece, whose size it must have.

    What `decode` does, and refuses, without a copy and for a JPEG without a second look at its header.
    """
    if payload.startswith(_JPEG):
        with contextlib.suppress(ValueError):  # too small a buffer, or damage: below it is said which
            if simplejpeg.decode_jpeg(payload, "RGB", buffer=image).shape == image.shape:
                return
    image[:] = decode(payload, name(), image.shape[:2])


def check_header(
    payload: bytes, name: str, size: "tuple[int, int] | None" = None, max_pixels: int = 1 << 26
) -> tuple[int, int]:
    """Return the (height, width) that the header states; arguments and errors are those of `decode`."""
    try:
        height, width = _jpeg_size(payload) if payload.startswith(_JPEG) else _other_size(payload)
    except struct.error:
        raise DataError(f"{name}: is damaged: its {len(payload)} bytes end within the header") from None
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None
    if not 0 < height * width <= max_pixels:
        raise DataError(f"{name}: the header states {height}×{width} pixels; 1 to {max_pixels} can be decoded")
    if size is not None and (height, width) != tuple(size):
        raise DataError(f"{name}: is {height}×{width} pixels, not {size[0]}×{size[1]}")
    return height, width


def _by_opencv(payload: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(payload, np.uint8), _FLAGS)
    if image is None:
        raise ValueError("it cannot be decoded")
    return image


def _jpeg_size(payload: bytes) -> tuple[int, int]:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(payload)
    except ValueError as error:
        raise ValueError(f"is damaged: {error}") from None
    return int(height), int(width)


def _other_size(payload: bytes) -> tuple[int, int]:
    """Return the (height, width) in the header of a PNG, BMP or WebP; ValueError or struct.error where it has none."""
    if payload.startswith(_PNG):
        return _png_size(payload)
    if payload.startswith(b"BM"):
        return _bmp_size(payload)
    if payload[:4] == b"RIFF" and payload[8:12] == b"WEBP":
        return _webp_size(payload)
    start = f"starts with {payload[:8].hex(' ')}" if payload else "is empty"
    raise ValueError(f"{start}, so it is no JPEG, PNG, BMP or WebP")


def _png_size(payload: bytes) -> tuple[int, int]:
    """Return the size that IHDR states, once every chunk is known to lie within the payload.

    OpenCV makes room for a chunk before it reads it: one that claims gigabytes takes seconds to be refused.
    """
    position, kind = len(_PNG), b""
    while kind != b"IEND":
        if position + 12 > len(payload):
            raise ValueError(f"is damaged: the PNG's {len(payload)} bytes end before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", payload, position)
        position += 12 + length
    if position > len(payload) or payload[12:16] != b"IHDR":
        raise ValueError("is damaged: the PNG's chunks are not IHDR to IEND")
    width, height = struct.unpack_from(">II", payload, 16)
    return height, width


def _bmp_size(payload: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", payload, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", payload, 18)
    return abs(height), width  # a negative height says that the rows run downward


def _webp_size(payload: bytes) -> tuple[int, int]:
    kind = payload[12:16]
    if kind == b"VP8X":  # 24 bits each, less one, behind the flags
        low, high, height_low, height_high = struct.unpack_from("<HBHB", payload, 24)
        return 1 + height_low + (height_high << 16), 1 + low + (high << 16)
    if kind == b"VP8L":  # 14 bits each, less one, behind the signature 0x2f
        (bits,) = struct.unpack_from("<I", payload, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 ":  # 14 bits each, behind the frame tag and the start code; the upper two bits scale
        width, height = struct.unpack_from("<HH", payload, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError(f"is damaged: the WebP's first chunk is {kind!r}")
