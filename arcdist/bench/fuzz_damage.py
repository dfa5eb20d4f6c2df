"""Damage to bytes, by chance, and pickles that mean harm."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

_HARM = (  # module, name, and what it is called with; {} is a folder that must not come to be
    *(("os", "mkdir", "{}"), ("posix", "mkdir", "{}"), ("os", "system", "mkdir {}"), ("posix", "system", "mkdir {}")),
    *(("builtins", "eval", "__import__('os').mkdir({!r})"), ("builtins", "exec", "import os; os.mkdir({!r})")),
    *(("subprocess", "getoutput", "mkdir {}"), ("pickle", "os.mkdir", "{}"), ("torch", "os.mkdir", "{}")),
    *(("torch._utils", "sys.modules", "{}"), ("torch.distributed.checkpoint.metadata", "os.mkdir", "{}")),
)


def damaged(whole: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return the bytes with one kind of damage, and its words."""
    data = bytearray(whole)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    how = ("bits", "cut", "zeros", "noise", "removed", "repeated", "exchanged")[rng.integers(7)]
    if how == "bits":
        for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
            data[bit // 8] ^= 1 << bit % 8
    elif how == "cut":
        del data[at:]
    elif how == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif how == "noise":
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif how == "removed":
        del data[at : at + length]
    elif how == "repeated":
        data[at:at] = data[at : at + length]
    else:
        other = int(rng.integers(len(data)))
        a, b = sorted((at, other))
        length = min(length, b - a, len(data) - b)
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    return bytes(data), f"{how} at byte {at}"


def hostile_pickle(rng: np.random.Generator, canary: Path) -> tuple[bytes, str]:
    """Return a pickle that makes the folder ``canary`` as it is read by who does as it says, and its words."""
    module, name, argument = _HARM[rng.integers(len(_HARM))]
    text = argument.format(str(canary)).encode()
    given = b"X" + len(text).to_bytes(4, "little") + text
    by_line, by_words = f"{module}\n{name}\n".encode(), b"".join(_short(word) for word in (module, name))
    how, call = (
        ("REDUCE", b"c" + by_line + given + b"\x85R"),
        ("STACK_GLOBAL", by_words + b"\x93" + given + b"\x85R"),
        ("INST", b"(" + given + b"i" + by_line),
        ("OBJ", b"(c" + by_line + given + b"o"),
        ("NEWOBJ", b"c" + by_line + given + b"\x85\x81"),
    )[rng.integers(5)]
    place, body = (("alone", call), ("in a list", b"]" + call + b"a"), ("in a dict", b"}" + _short("k") + call + b"s"))[
        rng.integers(3)
    ]
    return b"\x80\x02" + body + b".", f"{module}.{name} by {how} {place}"


def hostile_weights(rng: np.random.Generator, canary: Path) -> tuple[bytes, str]:
    """Return such a pickle as ``torch.save`` packs it now, or as it did before, and its words."""
    content, how = hostile_pickle(rng, canary)
    if rng.random() < 0.5:
        head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        return head + content + pickle.dumps([], 2), f"{how}, in a file of the old kind"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in (("data.pkl", content), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"weights/{name}", data)
    return packed.getvalue(), f"{how}, in an archive"


def _short(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()
