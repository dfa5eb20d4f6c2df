"""A checkpoint of a stranger's: what its ``.metadata`` may say."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import CheckpointError, read_marker, write_marker
from arcdist.checkpoint.reader import load


def _checkpoint(folder: Path) -> Path:
    manager = CheckpointManager(folder, CheckpointConfig())
    manager.save(1, {"backbone.weight": torch.ones(4, 3), "head.x": torch.ones(())}, {"config": {}}, wait=True)
    return folder / "step-000000001"


def _forge(checkpoint: Path, **files: bytes) -> None:
    """Put other files in a checkpoint, with a marker that says they are right."""
    marker = read_marker(checkpoint)
    for name, content in files.items():
        (checkpoint / name).write_bytes(content)
        marker["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_marker(checkpoint, marker)


def _refusal(checkpoint: Path) -> str:
    tensors = {"backbone.weight": torch.zeros(4, 3), "head.x": torch.zeros(())}
    with pytest.raises(CheckpointError) as raised:
        load(checkpoint, tensors)
    return str(raised.value)


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def test_a_name_that_leads_from_a_known_class_to_the_builtins_is_refused(tmp_path: Path) -> None:
    # STACK_GLOBAL walks dots: MetadataIndex.__init__.__builtins__.get("exec") is exec.
    name = b"MetadataIndex.__init__.__builtins__.get"
    module = b"torch.distributed.checkpoint.metadata"
    code = f"import os; os.mkdir({str(tmp_path / 'ran')!r})".encode()

    def text(value: bytes) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value

    hostile = b"\x80\x04" + text(module) + text(name) + b"\x93" + text(b"exec") + b"\x85R" + text(code) + b"\x85R."
    checkpoint = _checkpoint(tmp_path)
    _forge(checkpoint, **{".metadata": hostile})
    assert "asks for torch.distributed.checkpoint.metadata.MetadataIndex.__init__" in _refusal(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_bytes_in_the_place_of_a_tensor_are_not_unpickled(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path)
    stream = io.BytesIO()
    torch.save(_Calls(os.mkdir, str(tmp_path / "ran")), stream)
    told = pickle.loads((checkpoint / ".metadata").read_bytes())
    told.state_dict_metadata["head.x"] = BytesStorageMetadata()
    told.storage_data[MetadataIndex("head.x")] = _StorageInfo("__0_0.distcp", 0, len(stream.getvalue()))
    _forge(checkpoint, **{".metadata": pickle.dumps(told), "__0_0.distcp": stream.getvalue()})
    assert "BytesStorageMetadata, which no checkpoint needs" in _refusal(checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["../other/secret", "/etc/passwd", "link"])
def test_a_file_outside_of_the_checkpoint_is_not_read(tmp_path: Path, path: str) -> None:
    checkpoint = _checkpoint(tmp_path)
    told: Metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    for place in told.storage_data.values():
        place.relative_path = path
    (checkpoint / "link").symlink_to("/etc/passwd")
    _forge(checkpoint, **{".metadata": pickle.dumps(told)})
    assert f"names {path!r}, which is no file of its checkpoint" in _refusal(checkpoint)


@pytest.mark.parametrize("name", ["../../secret", "link"])
def test_a_file_of_the_marker_that_is_a_link_or_lies_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint = _checkpoint(tmp_path)
    (checkpoint / "link").symlink_to("__0_0.distcp")
    marker = read_marker(checkpoint)
    marker["files"][name] = marker["files"]["__0_0.distcp"]
    write_marker(checkpoint, marker)
    assert f"{name!r} is no file of its own" in _refusal(checkpoint)


def test_a_class_is_not_changed_by_what_is_read(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path)
    hostile = pickle.dumps(Metadata, 4)[:-1] + pickle.dumps((None, {"version": "9"}), 4)[2:-1] + b"b."
    _forge(checkpoint, **{".metadata": hostile})
    assert "would change a class" in _refusal(checkpoint)
    assert Metadata({}).version is None


def test_a_tensor_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path)
    told = pickle.loads((checkpoint / ".metadata").read_bytes())
    told.state_dict_metadata["backbone.weight"].chunks.clear()
    _forge(checkpoint, **{".metadata": pickle.dumps(told)})
    assert "parts of 'backbone.weight' that are not the whole" in _refusal(checkpoint)
