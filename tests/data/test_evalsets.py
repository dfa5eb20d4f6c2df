"""Verification sets are read alike whoever wrote them, and no pickle runs anything."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import full_disk

from arcdist.data.evalsets import read_bin, write_bin
from arcdist.errors import ArcdistError, DataError

IMAGES = [b"one", b"two", b"one", b"three"]
BINS = (
    *("insightface_small_lfw", "issame_int_protocol2_py3", "issame_numpy_bool_protocol4", "list_and_array_protocol4"),
    *("numpy_uint8_protocol3", "py2_protocol2", "py2_protocol2_shared"),
    *("py3_protocol2", "py3_protocol3", "py3_protocol4", "py3_protocol5"),
)


def save(path: Path, content: object, protocol: int = 4) -> Path:
    """Pickle anything as a .bin."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("name", BINS)
def test_every_variant_is_read_alike(data_root: Path, name: str) -> None:
    listed = json.loads((data_root / "formats/expected_bins.json").read_text())
    expected = next(entry for entry in listed if entry["file"] == f"bins/{name}.bin")
    pairs = read_bin(data_root / f"formats/bins/{name}.bin")
    assert pairs.name == name
    assert pairs.same.dtype == np.bool_
    assert pairs.same.tolist() == expected["issame"]
    assert [hashlib.sha256(image).hexdigest() for image in pairs.images] == expected["payload_sha256"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", ">i4"])
def test_arrays_of_every_protocol_and_integer_type_are_read(tmp_path: Path, protocol: int, dtype: str) -> None:
    encoded = [np.frombuffer(image, np.uint8).reshape(-1, 1) for image in IMAGES]
    pairs = read_bin(save(tmp_path / "x.bin", [encoded, np.array([1, 0], dtype)], protocol))
    assert pairs.images == IMAGES
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_an_image_of_no_bytes_is_read_too(tmp_path: Path, protocol: int) -> None:
    assert read_bin(save(tmp_path / "x.bin", ([b"", b"one"], [True]), protocol)).images == [b"", b"one"]


def test_an_image_of_many_pairs_is_one_object(data_root: Path) -> None:
    assert len({id(image) for image in read_bin(data_root / "lfw_dev.bin").images}) == 1036


def test_what_is_written_is_read_again_and_stores_equal_images_once(tmp_path: Path) -> None:
    images = [bytes([number % 3]) * 1000 for number in range(20)]
    write_bin(tmp_path / "set.bin", images, [True, False] * 5)
    pairs = read_bin(tmp_path / "set.bin")
    assert pairs.images == images
    assert pairs.same.tolist() == [True, False] * 5
    assert (tmp_path / "set.bin").stat().st_size < 4000
    assert [path.name for path in tmp_path.iterdir()] == ["set.bin"]


def test_insightfaces_own_line_reads_what_is_written(tmp_path: Path) -> None:
    write_bin(tmp_path / "set.bin", IMAGES, np.array([True, False]))
    with open(tmp_path / "set.bin", "rb") as file:
        assert pickle.load(file, encoding="bytes") == (IMAGES, [True, False])


class Hostile:
    """Pickles to a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        """Return the call."""
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [(open, r"i?o?\.?open"), (eval, "eval"), (subprocess.call, "call"), (getattr, "getattr")],
)
def test_a_pickle_that_would_run_code_is_refused_by_name(
    tmp_path: Path, protocol: int, function: object, name: str
) -> None:
    witness = tmp_path / "witness"
    path = save(tmp_path / "bad.bin", (IMAGES, Hostile(function, str(witness), "w")), protocol)
    with pytest.raises(DataError, match=rf"bad.bin: the pickle asks for .*{name}.*nothing was run"):
        read_bin(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "target", ["numpy.load", "numpy.core.multiarray.fromfile", "numpy.f2py.diagnose.run", "sys.exit"]
)
def test_numpy_is_no_back_door(tmp_path: Path, target: str) -> None:
    module, _, name = target.rpartition(".")
    (tmp_path / "bad.bin").write_bytes(f"\x80\x02c{module}\n{name}\n)R.".encode("latin1"))
    with pytest.raises(DataError, match=f"asks for {target}"):
        read_bin(tmp_path / "bad.bin")


def test_no_codec_but_latin1_is_called(tmp_path: Path) -> None:
    (tmp_path / "bad.bin").write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.")
    with pytest.raises(DataError, match="asks for the codec 'rot13'"):
        read_bin(tmp_path / "bad.bin")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dtype 'O8'"):
        read_bin(save(tmp_path / "x.bin", (np.array([b"a", None], dtype=object), [True])))


def test_a_large_memo_index_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.bin").write_bytes(b"\x80\x02]r\xff\xff\xff\xff.")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31)); "
    code = limited + "from arcdist.data.evalsets import read_bin; read_bin(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "bomb.bin"], capture_output=True, text=True)
    assert "holds a list, not the pair" in result.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ((IMAGES, [True]), "4 images for 1 pairs"),
        ((IMAGES, [True] * 3), "4 images for 3 pairs"),
        (([], []), "0 images for 0 pairs"),
        ((IMAGES, [True, 2]), "pair 1: a int does not say"),
        ((IMAGES, [True, None]), "pair 1: a NoneType does not say"),
        ((IMAGES, [True, "no"]), "pair 1: a str does not say"),
        (([*IMAGES[:3], "text"], [True, False]), "image 3 is a str"),
        (([*IMAGES[:3], np.zeros((4, 4, 3), np.uint8)], [True, False]), r"image 3 is a ndarray uint8 \[4, 4, 3\]"),
        (([*IMAGES[:3], np.zeros(4, np.int64)], [True, False]), r"image 3 is a ndarray int64 \[4\]"),
        (IMAGES, "holds a list, not the pair"),
        ({"images": IMAGES}, "holds a dict, not the pair"),
        ((b"bytes", [True]), "holds a bytes and a list"),
    ],
)
def test_what_is_no_set_of_pairs_is_refused(tmp_path: Path, content: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"odd.bin: .*{complaint}"):
        read_bin(save(tmp_path / "odd.bin", content))


def test_writing_odd_images_or_into_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 images for 1 pairs"):
        write_bin(tmp_path / "x.bin", IMAGES[:3], [True])
    with pytest.raises(DataError, match="cannot be written"):
        write_bin(tmp_path / "missing" / "x.bin", IMAGES[:2], [True])


def test_a_disk_that_is_full_is_told_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    with full_disk(100), pytest.raises(DataError, match=r"out\.bin: cannot be written: File too large"):
        write_bin(tmp_path / "out.bin", [bytes(1000)] * 2, [True])
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_bin(tmp_path / "missing.bin")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_no_damage_escapes_as_another_exception(tmp_path: Path, protocol: int) -> None:
    draw = random.Random(protocol)
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    contents = [(IMAGES, [True, False]), (arrays, np.array([True, False])), (arrays, [np.bool_(True), np.bool_(False)])]
    refused = 0
    for trial in range(200):
        damaged = bytearray(pickle.dumps(contents[trial % 3], protocol=protocol))
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "x.bin").write_bytes(damaged[: draw.randint(0, len(damaged))] if trial % 4 == 0 else damaged)
        try:
            read_bin(tmp_path / "x.bin")
        except ArcdistError:
            refused += 1
    assert refused > 40
