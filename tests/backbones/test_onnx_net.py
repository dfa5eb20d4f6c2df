"""ONNX files as backbones: whatever pixels they take, they are given images as every other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from arcdist.backbones import load_backbone
from arcdist.errors import ConfigError, DataError

PIXELS = torch.arange(3 * 3 * 8 * 8).reshape(3, 3, 8, 8) % 256
IMAGES = (PIXELS - 127.5) / 127.5


def _write(
    path: Path,
    *,
    kind: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = ("n", 3, 8, 8),
    scales: bool = False,
    told: str = "",
    unused: bool = False,
) -> None:
    """Write a network that gives the sum of every channel's pixels, as it gets them or after it has scaled them."""
    nodes, name = [], "data"
    if kind == TensorProto.UINT8:
        nodes += [helper.make_node("Cast", ["data"], ["cast"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2])]
        name = "planes"
    if scales:
        nodes += [helper.make_node("Sub", [name, "mean"], ["centered"])]
        nodes += [helper.make_node("Mul", ["centered", "factor"], ["scaled"])]
        name = "scaled"
    nodes += [helper.make_node("ReduceSum", [name, "axes"], ["sum"], keepdims=0)]
    constants = {"mean": np.float32(127.5), "factor": np.float32(1 / 127.5), "axes": np.array([2, 3])}
    inputs = [helper.make_tensor_value_info("data", kind, shape)]
    if unused:
        inputs.append(helper.make_tensor_value_info("left_over", TensorProto.FLOAT, [32, 3, 3, 3]))
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if told:
        helper.set_model_props(model, {"arcdist.input": told})
    onnx.save(model, path)


def _embedded(path: Path) -> torch.Tensor:
    return load_backbone(path)(IMAGES)


def test_a_file_that_scales_first_gets_bytes_and_another_gets_scaled_pixels(tmp_path: Path) -> None:
    _write(tmp_path / "scales.onnx", scales=True)
    _write(tmp_path / "plain.onnx")
    expected = IMAGES.sum((2, 3))
    torch.testing.assert_close(_embedded(tmp_path / "scales.onnx"), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(_embedded(tmp_path / "plain.onnx"), expected, rtol=1e-4, atol=1e-3)


def test_a_file_of_bytes_gets_them_as_decoders_give_them(tmp_path: Path) -> None:
    _write(tmp_path / "net.onnx", kind=TensorProto.UINT8, shape=("n", 8, 8, 3))
    torch.testing.assert_close(_embedded(tmp_path / "net.onnx"), PIXELS.sum((2, 3)).float())


def test_what_a_file_of_ours_says_goes_before_what_it_looks_like(tmp_path: Path) -> None:
    _write(tmp_path / "net.onnx", told="float")
    torch.testing.assert_close(_embedded(tmp_path / "net.onnx"), PIXELS.sum((2, 3)).float())


@pytest.mark.parametrize("rows", [1, 2])
def test_a_file_of_a_fixed_batch_gets_it_filled_up(tmp_path: Path, rows: int) -> None:
    _write(tmp_path / "net.onnx", shape=(rows, 3, 8, 8))
    torch.testing.assert_close(_embedded(tmp_path / "net.onnx"), IMAGES.sum((2, 3)), rtol=1e-4, atol=1e-3)


def test_an_input_that_no_node_uses_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "net.onnx", unused=True)
    torch.testing.assert_close(_embedded(tmp_path / "net.onnx"), IMAGES.sum((2, 3)), rtol=1e-4, atol=1e-3)


def test_other_weights_have_another_state(tmp_path: Path) -> None:
    _write(tmp_path / "a.onnx")
    _write(tmp_path / "b.onnx", scales=True)
    states = [load_backbone(tmp_path / name).state_dict()["digest"] for name in ("a.onnx", "a.onnx", "b.onnx")]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "net.onnx")
    with pytest.raises(DataError, match=r"net\.onnx: takes images of \[3, 8, 8\], not \[3, 9, 9\]"):
        load_backbone(tmp_path / "net.onnx")(torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 9])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(DataError, match=r"net\.onnx: no ONNX file that onnxruntime can run"):
        load_backbone(tmp_path / "net.onnx")


def test_a_network_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "n.onnx")
    with pytest.raises(DataError, match="a backbone takes images and gives embeddings"):
        load_backbone(tmp_path / "n.onnx")


def test_a_file_without_onnxruntime_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "net.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"ONNX needs onnxruntime: pip install 'arcdist\[export\]'"):
        load_backbone(tmp_path / "net.onnx")
