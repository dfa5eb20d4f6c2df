"""Verification sets: insightface's ``.bin``, a pickle of encoded images and of which pairs are the same person."""

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.errors import DataError

_PROTOCOL = 4
_DTYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


@dataclass(frozen=True, eq=False)
class PairSet:
    """P pairs of encoded images; pair i is ``images[2i]`` and ``images[2i + 1]``.

    An image that is in several pairs is one bytes object. ``same`` is bool ``[P]``: genuine pairs are True.
    """

    images: list[bytes]
    same: np.ndarray
    name: str


def read_bin(path: "str | os.PathLike[str]") -> PairSet:
    """Return the pairs of a ``.bin``, whichever Python wrote it; nothing that a hostile pickle names is run.

    The images may be bytes or one-dimensional uint8 arrays, the flags booleans, 0 and 1, or an array of them, and
    the two a tuple or a list.

    Raises:
        DataError: not such a pickle, one that asks for anything but bytes, numbers, lists and numpy arrays, or whose
            images are not two a pair.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file).load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        raise DataError(f"{path}: is no pickle of (images, same), or it is damaged: {error!r:.200}") from None
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise DataError(f"{path}: holds {_words(content)}, not the pair (images, same)")
    return _pair_set(path, *content)


def write_bin(path: "str | os.PathLike[str]", images: Sequence[bytes], same: Sequence[bool] | np.ndarray) -> None:
    """Write pairs as a ``.bin`` that insightface reads; equal images are stored once.

    Raises:
        DataError: images that are not two a pair, or a folder that cannot be written.
    """
    path = Path(path)
    pairs = _pair_set(path, list(images), same)
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        aside.write_bytes(pickle.dumps((pairs.images, pairs.same.tolist()), protocol=_PROTOCOL))
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _pair_set(path: Path, images: Any, same: Any) -> PairSet:
    images, same = _value(images), _value(same)
    if not isinstance(images, list | tuple | np.ndarray) or not isinstance(same, list | tuple | np.ndarray):
        raise DataError(f"{path}: holds {_words(images)} and {_words(same)}, not a list of images and one of flags")
    if len(same) == 0 or len(images) != 2 * len(same):
        raise DataError(f"{path}: {len(images)} images for {len(same)} pairs; each pair has two")
    flags = []
    for pair, flag in enumerate(same):
        if not isinstance(flag, bool | int | np.bool_ | np.integer) or flag not in (0, 1):
            raise DataError(f"{path}: pair {pair}: {_words(flag)} does not say whether the two are the same person")
        flags.append(bool(flag))
    once: dict[bytes, bytes] = {}
    encoded = [_image(f"{path}: image {number}", _value(image)) for number, image in enumerate(images)]
    return PairSet([once.setdefault(image, image) for image in encoded], np.array(flags), path.stem)


def _image(where: str, image: Any) -> bytes:
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size == max(image.shape, default=0):
        return image.tobytes()
    raise DataError(f"{where} is {_words(image)}, not encoded bytes")


def _value(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def _words(value: Any) -> str:
    shape = f" {value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else ""
    return f"a {type(value).__name__}{shape}"


class _DType:
    """Stands for ``numpy.dtype`` in a pickle; booleans and integers are known."""

    def __init__(self, name: "str | bytes", *_: Any) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name
        self.byte_order = "<"
        if self.name not in _DTYPES:
            raise DataError(f"holds an array of dtype {self.name!r}; known: {', '.join(_DTYPES)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = ">" if state[1] in (">", b">") else "<"

    def array(self, data: bytes, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
        return np.frombuffer(data, self.byte_order + self.name).reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """Stands for ``numpy.ndarray``: numpy's own would let a hostile pickle write into its insides."""

    value: "np.ndarray | None" = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = dtype.array(data, shape, "F" if fortran else "C")


class _Unpickler(pickle._Unpickler):
    """Knows the names of bytes and arrays and no other.

    The unpickler in Python rather than the one in C: the latter allocates a memo as long as the largest index that a
    file names, so five damaged bytes could take 64 GB.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="bytes")  # Python 2 wrote images as str
        self._names = _names()

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for the name, or refuse it."""
        try:
            return self._names[module.replace("numpy._core.", "numpy.core."), name]
        except KeyError:
            raise DataError(
                f"the pickle asks for {module}.{name}, which no verification set needs; nothing was run"
            ) from None


def _names() -> dict[tuple[str, str], Callable[..., Any]]:
    """Return what a pickle may name, made anew for each, because a pickle may write a function's attributes."""

    def encode(text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise DataError(f"the pickle asks for the codec {encoding!r}; nothing was run")
        return text.encode("latin1")

    def no_bytes() -> bytes:
        return b""

    def reconstruct(*_: Any) -> _Array:
        return _Array()

    def scalar(dtype: _DType, data: bytes) -> Any:
        return dtype.array(data, ())[()]

    def frombuffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str, *_: Any) -> np.ndarray:
        return dtype.array(data, shape, order)

    return {
        ("_codecs", "encode"): encode,
        ("builtins", "bytes"): no_bytes,
        ("__builtin__", "bytes"): no_bytes,
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
    }
