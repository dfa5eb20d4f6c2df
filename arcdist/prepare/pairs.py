"""LFW's pairs.txt and a folder of images to a verification set."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from arcdist.data.decode import decode
from arcdist.data.evalsets import write_bin
from arcdist.data.pairs_txt import read_pairs
from arcdist.errors import DataError


@dataclass
class PairsConfig:
    """Which pairs of which images."""

    images: str = field(metadata={"help": "folder with one folder of images an identity: NAME/NAME_0001.jpg"})
    output: str = field(metadata={"help": "the .bin to write"})
    pairs: str = field(metadata={"help": "LFW's pairs.txt: a header, then NAME 1 4 and NAME1 1 NAME2 2, tab-separated"})
    image_size: int = field(default=112, metadata={"help": "height and width in pixels that every image has"})


@dataclass
class PairsReport:
    """What `pack_pairs` wrote."""

    output: str
    pairs: int
    genuine: int
    images: int


def pack_pairs(config: PairsConfig) -> PairsReport:
    """Return what was written: the pairs in the order of the list, as insightface's ``.bin``.

    Errors: DataError for a line that is no pair, an image that is missing or of another size; nothing is written.
    """
    pairs = read_pairs(Path(config.pairs))
    root = Path(config.images)
    paths = [_image_path(root, *image) for first, second, _ in pairs for image in (first, second)]
    loaded = {path: _load(path, config.image_size) for path in dict.fromkeys(paths)}
    same = [genuine for _, _, genuine in pairs]
    write_bin(config.output, [loaded[path] for path in paths], same)
    return PairsReport(config.output, len(same), sum(same), len(loaded))


def _load(path: Path, image_size: int) -> bytes:
    """Return the encoded image, which is known to be one of that size."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    decode(payload, str(path), (image_size, image_size))
    return payload


def _image_path(root: Path, name: str, number: int) -> Path:
    if "/" in name or name in (".", ".."):
        raise DataError(f"{name!r}: is no name of an identity's folder")
    for ending in ("jpg", "png"):
        path = root / name / f"{name}_{number:04d}.{ending}"
        if os.path.isfile(path):  # a folder that may not be entered is no error here, as it is to Path.is_file
            return path
    raise DataError(f"{root / name / f'{name}_{number:04d}.jpg'}: no such image")
