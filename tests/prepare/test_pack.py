"""A folder of identities becomes a set that reads back image for image, and what cannot be packed is said."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.data.recordio import RecordReader
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.pack import PackConfig, pack


def face(seed: int, height: int = 112, width: int = 112, suffix: str = ".jpg") -> bytes:
    """Return an encoded image of smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(suffix, image)[1].tobytes()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def config(tmp_path: Path) -> PackConfig:
    """Return a config whose image folder is still to be filled."""
    (tmp_path / "faces").mkdir()
    return PackConfig(str(tmp_path / "faces"), str(tmp_path / "out" / "set.rec"), progress=False)


def test_jpeg_images_of_the_right_size_are_kept_byte_for_byte(data_root: Path, tmp_path: Path) -> None:
    report = pack(PackConfig(str(data_root / "dev_images"), str(tmp_path / "dev.rec"), progress=False))
    assert (report.identities, report.images, report.kept, report.skipped) == (26, 102, 102, [])
    dataset = RecordDataset(tmp_path / "dev.rec")
    lines = [line.split("\t") for line in (tmp_path / "dev.lst").read_text().splitlines()]
    assert len(lines) == len(dataset) == 102
    for sample, (key, label, name) in enumerate(lines):
        assert dataset.key(sample) == int(key)
        assert dataset.read(sample) == (int(label), (data_root / "dev_images" / name).read_bytes())
    assert len({(name.split("/")[0], label) for _, label, name in lines}) == 26


def test_the_layout_is_that_of_the_real_set(data_root: Path, config: PackConfig) -> None:
    people = [line.split("\t")[1] for line in (data_root / "cfp_small.lst").read_text().splitlines()]
    for number, label in enumerate(people):
        folder(Path(config.images), {f"person_{int(label):04d}/{number:05d}.jpg": face(0)})
    pack(config)
    with RecordReader(config.output) as ours, RecordReader(data_root / "cfp_small.rec") as theirs:
        assert ours.keys().tolist() == theirs.keys().tolist()
        for our, their in zip(ours, theirs):
            assert (our.flag, our.id, our.id2) == (their.flag, their.id, their.id2)
            assert np.array_equal(our.label, their.label)
            assert bool(our.payload) == bool(their.payload)
    assert Path(config.output).with_suffix(".property").read_text() == "16,112,112\n"


def test_identities_are_numbered_in_the_order_of_their_names(config: PackConfig) -> None:
    folder(Path(config.images), {"b/1.jpg": face(1), "a/1.jpg": face(2), "c/2.jpg": face(3), "c/1.jpg": face(4)})
    pack(config)
    listed = Path(config.output).with_suffix(".lst").read_text()
    assert listed == "1\t0\ta/1.jpg\n2\t1\tb/1.jpg\n3\t2\tc/1.jpg\n4\t2\tc/2.jpg\n"


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_other_encodings_become_jpeg_that_looks_the_same(config: PackConfig, suffix: str) -> None:
    folder(Path(config.images), {f"a/1{suffix}": (encoded := face(1, suffix=suffix))})
    assert pack(config).encoded == 1
    _, payload = RecordDataset(config.output).read(0)
    assert payload[:2] == b"\xff\xd8"
    difference = np.abs(decode(payload, "packed").astype(int) - decode(encoded, "original").astype(int))
    assert difference.mean() < 2


def test_a_jpeg_of_four_inks_is_encoded_as_all_readers_read_it(data_root: Path, config: PackConfig) -> None:
    with RecordReader(data_root / "formats/d_encodings.rec") as reader:
        inks = next(record.payload for record in reader if _colors_of(record.payload) == "CMYK")
    folder(Path(config.images), {"a/1.jpg": inks})
    report = pack(config)
    assert (report.kept, report.encoded) == (0, 1)
    packed = RecordDataset(config.output).read(0)[1]
    assert _colors_of(packed) == "YCbCr"
    assert np.abs(decode(packed, "packed").astype(int) - decode(inks, "inks")).mean() < 4


def _colors_of(payload: bytes) -> str:
    return simplejpeg.decode_jpeg_header(payload)[2] if payload.startswith(b"\xff\xd8") else ""


def test_an_image_of_another_size_stops_the_packing_and_leaves_nothing(config: PackConfig) -> None:
    folder(Path(config.images), {"a/1.jpg": face(1), "b/large.jpg": face(2, 160, 112)})
    with pytest.raises(DataError, match=r"b/large.jpg: the image is 160×112 pixels, not 112×112.*resize=true"):
        pack(config)
    assert list(Path(config.output).parent.iterdir()) == []


@pytest.mark.parametrize(("height", "width"), [(224, 224), (50, 50), (160, 112)])
def test_an_image_of_another_size_is_scaled_when_asked(config: PackConfig, height: int, width: int) -> None:
    folder(Path(config.images), {"a/1.png": face(1, height, width, ".png"), "a/2.jpg": face(1)})
    report = pack(dataclasses.replace(config, resize=True))
    assert (report.resized, report.kept) == (1, 1)
    scaled, original = (decode(RecordDataset(config.output).read(sample)[1], "packed").astype(int) for sample in (0, 1))
    assert scaled.shape == (112, 112, 3)
    assert np.abs(scaled - original).mean() < 12


def test_unreadable_files_are_skipped_and_reported(config: PackConfig) -> None:
    files = {
        "a/1.jpg": face(1),
        "a/2.jpg": face(2)[:900],
        "a/3.jpg": b"",
        "a/notes.txt": b"some words",
        "a/deeper/1.jpg": face(3),
        "b/1.jpg": b"\xff\xd8\xff",
        "c/.DS_Store": b"hidden",
        "c/1.jpg": face(4),
    }
    report = pack(dataclasses.replace(config, images=str(folder(Path(config.images), files))))
    assert (report.identities, report.images) == (2, 2)
    assert [skip.file for skip in report.skipped] == ["a/2.jpg", "a/3.jpg", "a/deeper", "a/notes.txt", "b/1.jpg"]
    assert RecordDataset(config.output).labels().tolist() == [0, 1]
    assert json.loads(json.dumps(dataclasses.asdict(report)))["skipped"][2]["reason"].startswith("a folder")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, r"holds no folder of an identity \(0 files\)"),
        ({"1.jpg": b"x", "2.jpg": b"x"}, r"holds no folder of an identity \(2 files\)"),
        ({"a/1.jpg": b"x"}, "no readable image in 1 folders; 1 files were skipped; a/1.jpg: "),
    ],
)
def test_a_folder_without_a_readable_identity_is_refused(
    config: PackConfig, files: dict[str, bytes], complaint: str
) -> None:
    folder(Path(config.images), files)
    with pytest.raises(DataError, match=complaint):
        pack(config)
    assert not Path(config.output).exists()


def test_a_missing_folder_is_refused(config: PackConfig) -> None:
    with pytest.raises(DataError, match="is no folder"):
        pack(dataclasses.replace(config, images="/no/such/folder"))


def test_an_output_that_cannot_be_written_is_refused(config: PackConfig, tmp_path: Path) -> None:
    folder(Path(config.images), {"a/1.jpg": face(1)})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        pack(dataclasses.replace(config, output=str(tmp_path / "file" / "set.rec")))


@pytest.mark.parametrize(
    "change",
    [{"output": "set.bin"}, {"image_size": 0}, {"image_size": 4097}, {"quality": 0}, {"quality": 101}, {"workers": 0}],
)
def test_a_value_that_cannot_be_right_is_named(config: PackConfig, change: dict) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(change))}: "):
        pack(dataclasses.replace(config, **change))


def test_the_folders_property_is_left_alone_beside_other_sets(config: PackConfig, tmp_path: Path) -> None:
    folder(Path(config.images), {"a/1.jpg": face(1), "b/1.jpg": face(2)})
    pack(config)
    theirs = Path(config.output).with_name("property")
    assert theirs.read_text() == "2,112,112\n"
    theirs.write_text("5,112,112\n")
    pack(dataclasses.replace(config, output=str(Path(config.output).with_name("second.rec"))))
    assert theirs.read_text() == "5,112,112\n"
    assert RecordDataset(Path(config.output).with_name("second.rec")).num_classes == 2
