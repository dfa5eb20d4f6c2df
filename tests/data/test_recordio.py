"""Records are read and written byte for byte as mxnet does, and damage is an error that says where."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from arcdist.data.recordio import RecordError, RecordReader, RecordWriter
from arcdist.errors import ArcdistError

MAGIC = b"\x0a\x23\xd7\xce"
FIXTURES = (
    *("a_im2rec_noheader", "b_multilabel", "b_header_first", "b_header_last", "b_three_labels", "c_magic", "c_padding"),
    *("d_encodings", "e_shuffled", "e_shuffled_sequential", "f_sequential", "f_raw", "g_big_labels", "h_sparse_index"),
)


def expectation(data_root: Path, name: str) -> dict:
    """Return what mxnet read from a fixture file."""
    files = json.loads((data_root / "formats/expected.json").read_text())["files"]
    return next(entry for entry in files if entry["file"] == f"{name}.rec")


def sha256(data: bytes) -> str:
    """Return the digest that the expectations use."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a file of five records, the third of several parts."""
    path = tmp_path / "small.rec"
    with RecordWriter(path) as writer:
        for key in range(5):
            writer.write(key, key, MAGIC * 3 + b"tail" if key == 2 else bytes(range(50 + key)))
    return path


@pytest.mark.parametrize("name", FIXTURES)
def test_every_record_is_what_mxnet_reads(data_root: Path, name: str) -> None:
    expected = expectation(data_root, name)["records"]
    with RecordReader(data_root / f"formats/{name}.rec") as reader:
        keys = reader.keys().tolist()
        assert keys == [number if entry["key"] is None else entry["key"] for number, entry in enumerate(expected)]
        for key, entry in zip(keys, expected):
            assert reader.offset(key) == entry["offset"]
            assert sha256(reader.record_bytes(key)) == entry["record_sha256"]
            if "flag" in entry:
                record = reader[key]
                assert (record.flag, record.id, record.id2) == (entry["flag"], entry["id"], entry["id2"])
                assert np.array_equal(record.label, np.array(entry["label"], np.float32))
                assert isinstance(record.label, np.ndarray) == (record.flag > 0)
                assert sha256(record.payload) == entry["payload_sha256"]


@pytest.mark.parametrize("name", FIXTURES)
def test_written_again_every_file_is_the_same_bytes(data_root: Path, tmp_path: Path, name: str) -> None:
    source = data_root / f"formats/{name}.rec"
    with RecordReader(source) as reader, RecordWriter(tmp_path / "again.rec") as writer:
        for key, entry in zip(reader.keys().tolist(), expectation(data_root, name)["records"]):
            if "flag" in entry:
                record = reader[key]
                writer.write(key, record.label, record.payload, record.id, record.id2)
            else:
                writer.write_bytes(key, reader.record_bytes(key))
    assert (tmp_path / "again.rec").read_bytes() == source.read_bytes()
    if source.with_suffix(".idx").exists():
        assert (tmp_path / "again.idx").read_bytes() == source.with_suffix(".idx").read_bytes()


@pytest.mark.parametrize("name", [name for name in FIXTURES if name != "f_raw"])
def test_headers_in_bulk_are_those_of_the_records(data_root: Path, name: str) -> None:
    with RecordReader(data_root / f"formats/{name}.rec") as reader:
        headers = reader.headers(reader.keys())
        records = list(reader)
    assert headers.flag.tolist() == [record.flag for record in records]
    assert headers.label.tolist() == [record.first_label for record in records]
    assert headers.payload_bytes.tolist() == [len(record.payload) for record in records]


@pytest.mark.parametrize("name", ["truncated_payload", "truncated_header", "bad_magic"])
def test_a_damaged_file_is_refused_with_the_number_of_whole_records(data_root: Path, name: str) -> None:
    whole = json.loads((data_root / "formats/expected.json").read_text())["damaged"][name]["whole_records_before"]
    with pytest.raises(RecordError, match=rf"{name}.rec: record {whole} at byte .* after {whole} whole records"):
        RecordReader(data_root / f"formats/damaged/{name}.rec")


def test_labels_above_two_to_the_24_are_stored_as_mxnet_stores_them(data_root: Path, tmp_path: Path) -> None:
    entries = expectation(data_root, "g_big_labels")["records"]
    with RecordWriter(tmp_path / "big.rec") as writer:
        for entry in entries:
            asked = [entry["asked_label"], 1] if entry["flag"] else entry["asked_label"]
            writer.write(entry["key"], asked, b"")
    with RecordReader(tmp_path / "big.rec") as reader:
        stored = [record.first_label for record in reader]
    assert stored == [np.ravel(entry["label"])[0] for entry in entries]


def test_iteration_follows_the_file_and_not_the_index(small: Path) -> None:
    index = small.with_suffix(".idx")
    index.write_text("".join(reversed(index.read_text().splitlines(keepends=True))))
    with RecordReader(small) as reader:
        assert [record.id for record in reader] == [0, 1, 2, 3, 4]


def test_a_bare_record_says_that_it_has_no_header(data_root: Path) -> None:
    with RecordReader(data_root / "formats/f_raw.rec") as reader, pytest.raises(RecordError, match="no IRHeader"):
        _ = reader[1]


def test_threads_share_one_reader(data_root: Path) -> None:
    with RecordReader(data_root / "cfp_small.rec") as reader, concurrent.futures.ThreadPoolExecutor(8) as pool:
        keys = reader.keys().tolist() * 4
        assert list(pool.map(lambda key: reader[key].id, keys)) == keys


def _payload_digests(reader: RecordReader, keys: list[int]) -> list[str]:
    return [sha256(reader[key].payload) for key in keys]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_one_reader(small: Path, method: str) -> None:
    reader = RecordReader(small)
    with multiprocessing.get_context(method).Pool(1) as pool:
        digests = pool.apply(_payload_digests, (reader, [4, 2, 0]))
    assert digests == _payload_digests(reader, [4, 2, 0])


def test_a_reader_that_travels_notices_that_the_file_was_replaced(small: Path) -> None:
    travelling = pickle.dumps(RecordReader(small))
    small.write_bytes(small.read_bytes() + bytes(4))
    with pytest.raises(RecordError, match="when it was opened"):
        pickle.loads(travelling)


def test_the_index_takes_16_bytes_a_record(data_root: Path) -> None:
    with RecordReader(data_root / "lfw_train.rec") as reader:
        index = reader._index
        assert index.keys.nbytes + index.offsets.nbytes == 16 * len(reader)
        assert index.keys.base is None
        assert index.offsets.base is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lists no record"),
        ("0\t0\n0\t84\n", "1 of 2 records have the key of another one"),
        ("-1\t0\n", "negative key"),
        ("0\t-4\n", "negative offset"),
        ("0\t2\n", "no multiple of 4"),
        ("0\t0\n1\t99999996\n", "lie beyond the end of small.rec.*a whole copy has over 99_999_996 bytes"),
        ("0\t9223372036854775804\n", "lie beyond the end"),
        ("0\t0\n1\t8\n", r"record 1 at byte 8: magic is 0x00000000, not 0xced7230a.*the index is another file's"),
        ("0\t0\t0\n", "is no index"),
        ("0\t0\nname\t84\n", "is no index"),
        ("0\t1.5\n", "is no index"),
        ("0\t99999999999999999999999\n", "is no index"),
        ("\xff\xfe\x00", "is no index"),
    ],
)
def test_an_index_that_cannot_be_right_is_refused(small: Path, text: str, complaint: str) -> None:
    small.with_suffix(".idx").write_text(text, encoding="latin1")
    with pytest.raises(RecordError, match=complaint):
        RecordReader(small)


def test_the_index_of_another_file_is_refused_at_open(data_root: Path) -> None:
    formats = data_root / "formats"
    with pytest.raises(RecordError, match="another file's"):
        RecordReader(formats / "b_header_first.rec", formats / "b_header_last.idx")


def test_an_offset_into_the_middle_of_a_record_is_refused(small: Path) -> None:
    with RecordReader(small) as reader:
        middle = reader.offset(2) + 8 + 24
    small.with_suffix(".idx").write_text(f"0\t{middle}\n")
    with pytest.raises(RecordError, match="a part of kind 2 cannot begin a record"):
        RecordReader(small)


@pytest.mark.parametrize("name", ["missing.rec", ""])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        RecordReader(tmp_path / name)


def test_a_last_record_whose_later_parts_are_cut_off_is_refused_at_open(small: Path) -> None:
    with RecordWriter(small) as writer:
        writer.write(9, 0, b"first")
        writer.write(5, 0, MAGIC * 3 + b"tail")
    os.truncate(small, small.stat().st_size - 4)
    with pytest.raises(RecordError, match="record 5 at byte"):
        RecordReader(small)


def test_an_index_that_was_named_must_be_there(small: Path) -> None:
    with pytest.raises(RecordError, match=r"other.idx: cannot be read"):
        RecordReader(small, small.with_name("other.idx"))


def test_a_key_that_is_not_there_is_an_error_with_the_range(small: Path) -> None:
    with RecordReader(small) as reader, pytest.raises(RecordError, match=r"no record has key 7 .*keys 0\.\.4"):
        _ = reader[7]


def test_no_records_make_a_file_that_can_be_read(tmp_path: Path) -> None:
    RecordWriter(tmp_path / "none.rec").close()
    assert list(RecordReader(tmp_path / "none.rec")) == []


def _fail_at_the_second_record(writer: RecordWriter) -> None:
    writer.write(0, 0, b"x")
    writer.write(1, 0, b"x", id=-1)


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="do not fit"), RecordWriter(tmp_path / "half.rec") as writer:
        _fail_at_the_second_record(writer)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_does_not_replace_a_finished_one(small: Path) -> None:
    before = small.read_bytes()
    with RecordWriter(small) as writer:
        writer.write(0, 0, b"x")
        assert small.read_bytes() == before
    assert small.read_bytes() != before


def test_a_file_that_took_its_name_never_has_the_index_of_the_one_before(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def cut_short(aside: Path, target: Path) -> Path:
        if target.suffix == ".idx":
            raise OSError(28, "No space left on device")
        return replace(aside, target)

    monkeypatch.setattr(Path, "replace", cut_short)
    with pytest.raises(RecordError, match="cannot be written: No space left"), RecordWriter(small) as writer:
        writer.write(5, 0, b"another")
    assert not small.with_suffix(".idx").exists()
    with RecordReader(small) as reader:
        assert [record.payload for record in reader] == [b"another"]


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"key": -1, "label": 0, "payload": b"", "id": 0}, "a key is at least 0"),
        ({"key": 0, "label": 1e300, "payload": b""}, "do not fit"),
        ({"key": 0, "label": 0, "payload": b"", "id2": -1}, "do not fit"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, record: dict, complaint: str) -> None:
    with pytest.raises(RecordError, match=complaint), RecordWriter(tmp_path / "x.rec") as writer:
        writer.write(**record)


def test_a_key_that_is_written_twice_leaves_no_file(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "x.rec")
    writer.write(0, 0, b"")
    writer.write(0, 0, b"")
    with pytest.raises(RecordError, match="1 records have a key that was written before"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        RecordWriter(tmp_path / "missing" / "x.rec")


@pytest.mark.parametrize("suffix", [".rec", ".idx"])
def test_no_damage_escapes_as_another_exception(small: Path, suffix: str) -> None:
    draw = random.Random(0)
    whole = {ending: small.with_suffix(ending).read_bytes() for ending in (".rec", ".idx")}
    refused = 0
    for trial in range(200):
        damaged = bytearray(whole[suffix])
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.choice((0, 9, 10, 45, 48, 57, 255, draw.randrange(256)))
        small.with_suffix(suffix).write_bytes(damaged[: draw.randint(0, len(damaged))] if trial % 2 else damaged)
        if suffix == ".rec" and trial == 100:
            small.with_suffix(".idx").unlink()
        try:
            with RecordReader(small) as reader:
                reader.headers(reader.keys())
                assert len(list(reader)) == len(reader)
        except ArcdistError:
            refused += 1
    assert refused > 40


MXNET_ROUND_TRIP = """
import sys, numpy, mxnet
from mxnet.recordio import IRHeader, MXIndexedRecordIO, pack, unpack
source, target = sys.argv[1:]
reader = MXIndexedRecordIO(source + ".idx", source + ".rec", "r")
writer = MXIndexedRecordIO(target + ".idx", target + ".rec", "w")
for key in reader.keys:
    header, payload = unpack(reader.read_idx(key))
    writer.write_idx(key, pack(header, payload))
writer.close()
"""


def test_mxnet_reads_our_files_and_writes_the_same_bytes(tmp_path: Path) -> None:
    python = os.environ.get("ARCDIST_MXNET_PYTHON")
    if not python:
        pytest.skip("ARCDIST_MXNET_PYTHON does not name a Python that has mxnet 1.9.1 and numpy<1.24")
    draw = random.Random(1)
    with RecordWriter(tmp_path / "ours.rec") as writer:
        for key in range(500):
            payload = b"".join(draw.choice((MAGIC, b"ab", b"", bytes(3))) for _ in range(draw.randrange(12)))
            label = draw.choice((key, [key, 1.0], np.arange(5), draw.random(), [7.0]))
            writer.write(draw.randrange(1 << 20) << 9 | key, label, payload, draw.randrange(1 << 64), key % 7)
    subprocess.run([python, "-c", MXNET_ROUND_TRIP, tmp_path / "ours", tmp_path / "theirs"], check=True)
    for ending in (".rec", ".idx"):
        assert (tmp_path / f"theirs{ending}").read_bytes() == (tmp_path / f"ours{ending}").read_bytes()
