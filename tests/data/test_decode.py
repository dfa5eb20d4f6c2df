"""Images of every encoding of the field become 8-bit RGB; damaged and hostile ones become a message."""

import hashlib
import json
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from arcdist.data.decode import decode, decode_into
from arcdist.data.recordio import RecordReader
from arcdist.errors import DataError

CASES = [
    *("png_rgb", "png_gray", "png_rgba", "png_palette", "png_16bit_gray", "jpeg_gray", "jpeg_progressive", "jpeg_444"),
    *("jpeg_cmyk", "jpeg_exif_orientation6", "bmp_rgb", "webp_rgb", "jpeg_96x112"),
]


@pytest.fixture(scope="module")
def payloads(data_root: Path) -> dict[str, bytes]:
    """Return one face in many encodings."""
    reader = RecordReader(data_root / "formats/d_encodings.rec")
    return {record["case"]: reader[record["key"]].payload for record in expected_records(data_root)}


def expected_records(data_root: Path) -> list[dict]:
    """Return what mxnet says of each encoding."""
    files = json.loads((data_root / "formats/expected.json").read_text())["files"]
    records = next(file["records"] for file in files if file["file"] == "d_encodings.rec")
    return [record for record in records if "case" in record]


def face() -> np.ndarray:
    """Return a smooth image with a different slope in each channel."""
    rows, columns = np.mgrid[:40, :30]
    return np.stack([4 * rows, 6 * columns, 2 * rows + 3 * columns], axis=2).astype(np.uint8)


def encode(extension: str, *options: int) -> bytes:
    return cv2.imencode(extension, face()[..., ::-1], options)[1].tobytes()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of these chunks, their checksums right."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("case", CASES)
def test_an_encoding_has_the_size_and_the_colors_that_mxnet_sees(data_root: Path, payloads: dict, case: str) -> None:
    mxnet = next(record["mxnet_decoded"] for record in expected_records(data_root) if record["case"] == case)
    if case == "webp_rgb":  # mxnet cannot read it
        mxnet = {"shape": [112, 112, 3], "mean_rgb": decode(payloads["png_rgb"], "png").mean((0, 1))}
    image = decode(payloads[case], case)
    assert list(image.shape) == mxnet["shape"]
    np.testing.assert_allclose(image.mean((0, 1)), mxnet["mean_rgb"], atol=0.3)
    if "pixels_sha256" in mxnet:
        assert hashlib.sha256(image.tobytes()).hexdigest() == mxnet["pixels_sha256"]


@pytest.mark.parametrize(
    ("extension", "options"), [(".png", ()), (".bmp", ()), (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101))]
)
def test_lossless_encodings_give_the_pixels_back(extension: str, options: tuple[int, ...]) -> None:
    image = decode(encode(extension, *options), "it", size=(40, 30))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, face())


def test_a_webp_with_alpha_has_its_size() -> None:
    transparent = np.dstack([face(), face()[..., 0]])
    payload = cv2.imencode(".webp", transparent, [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()
    assert payload[12:16] == b"VP8X"
    assert decode(payload, "it", size=(40, 30)).shape == (40, 30, 3)


def test_a_wrong_size_is_said_with_the_right_one(payloads: dict) -> None:
    with pytest.raises(DataError, match=r"^train\.rec record 13: is 112×96 pixels, not 112×112$"):
        decode(payloads["jpeg_96x112"], "train.rec record 13", size=(112, 112))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01])
def test_an_image_that_is_cut_short_is_damaged(payloads: dict, case: str, kept: float) -> None:
    payload = payloads[case]
    with pytest.raises(DataError, match=r"^it: "):
        decode(payload[: int(kept * len(payload))], "it")


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_last_bytes_is_damaged(missing: int) -> None:
    payload = simplejpeg.encode_jpeg(face(), quality=95)
    with pytest.raises(DataError, match="it: is damaged: Premature end of JPEG file"):
        decode(payload[:-missing], "it")


def test_a_jpeg_with_bytes_behind_its_end_is_read() -> None:
    payload = simplejpeg.encode_jpeg(face(), quality=95)
    np.testing.assert_array_equal(decode(payload + bytes(7), "it"), decode(payload, "it"))


def bombs() -> dict[str, bytes]:
    """Return small files whose headers state images of gigabytes."""
    jpeg = bytearray(simplejpeg.encode_jpeg(face()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    bmp = bytearray(encode(".bmp"))
    bmp[18:26] = struct.pack("<ii", 60000, -60000)
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<HBHB", 0xFFFF, 0, 0xFFFF, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return {
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
        "png": png((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")),
        "webp": webp,
    }


@pytest.mark.parametrize("format", ["jpeg", "png", "bmp", "webp"])
def test_a_header_that_states_gigabytes_is_refused_before_decoding(format: str) -> None:
    with pytest.raises(DataError, match=r"the header states 6\d{4}×6\d{4} pixels"):
        decode(bombs()[format], "bomb")


def test_a_png_chunk_that_claims_gigabytes_is_refused_at_once() -> None:
    payload = bytearray(encode(".png"))
    chunk = payload.index(b"IDAT") - 4
    payload[chunk : chunk + 4] = struct.pack(">I", 0x7FFFFFFF)
    start = time.perf_counter()
    with pytest.raises(DataError, match="it: is damaged: the PNG"):
        decode(bytes(payload), "it")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("payload", [b"", b"not an image", encode(".gif"), encode(".tiff")])
def test_what_is_no_jpeg_png_bmp_or_webp_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="so it is no JPEG, PNG, BMP or WebP"):
        decode(payload, "it")


@pytest.mark.parametrize("shape", [(24, 16, 3), (200, 300, 3), (8, 8, 3)])
def test_what_is_decoded_in_place_is_what_is_decoded_and_another_size_is_refused(shape: tuple[int, int, int]) -> None:
    payload = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    place = np.empty((24, 16, 3), np.uint8)
    if shape == place.shape:
        decode_into(place, payload, lambda: "it")
        np.testing.assert_array_equal(place, decode(payload, "it"))
    else:
        with pytest.raises(DataError, match=f"it: is {shape[0]}×{shape[1]} pixels, not 24×16"):
            decode_into(place, payload, lambda: "it")
