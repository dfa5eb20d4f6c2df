"""``arcdist export int8``: a quarter of the size, and what that costs is told."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from arcdist.backbones import create_backbone, load_backbone
from arcdist.cli.main import main


@pytest.fixture(scope="module")
def exported(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``net.safetensors``, of images of 32 pixels, ``int8.onnx`` made of it, and ``int8.json``."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    model = create_backbone("tiny", 64)
    with torch.no_grad():
        for _ in range(40):
            model(torch.rand(8, 3, 32, 32) * 2 - 1)
    metadata = {"backbone": "tiny", "embedding_dim": "64", "image_size": "32", "step": "40"}
    save_file(model.state_dict(), folder / "net.safetensors", metadata)
    arguments = [f"model={folder / 'net.safetensors'}", f"calibration={faces / 'train.rec'}", "calibration_images=48"]
    sets = [f"sets=[{faces / 'held_out.bin'}]", "input=float", "--json", str(folder / "int8.json")]
    assert main(["export", "int8", str(folder / "int8.onnx"), *arguments, *sets]) == 0
    return folder


def test_every_convolution_and_product_is_in_integers_and_the_file_a_quarter(exported: Path) -> None:
    nodes = onnx.load(exported / "int8.onnx").graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert [made_by[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2
    whole, small = (exported / name for name in ("net.safetensors", "int8.onnx"))
    assert small.stat().st_size < 0.3 * whole.stat().st_size


def test_embeddings_stay_near_those_before_in_batches_of_any_size(exported: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32)).astype(np.float32)
    images = (torch.from_numpy(pixels) - 127.5) / 127.5
    with torch.inference_mode():
        expected = load_backbone(exported / "net.safetensors")(images)
    session = onnxruntime.InferenceSession(exported / "int8.onnx")
    for rows in (1, 5):
        given = torch.from_numpy(session.run(None, {"images": pixels[:rows]})[0])
        assert torch.cosine_similarity(given, expected[:rows]).min() > 0.97
    torch.testing.assert_close(load_backbone(exported / "int8.onnx")(images), given, rtol=0, atol=0)


def test_accuracy_before_and_after_is_told(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads((exported / "int8.json").read_text())
    scores = told["sets"]["held_out"]
    assert {"float32", "int8"} == set(scores)
    assert all(score["pairs"] == 40 and 0 <= score["accuracy"] <= 1 for score in scores.values())
    assert 0.97 < told["cosine_to_float32"]["least"] <= told["cosine_to_float32"]["mean"] < 1
    assert told["calibration_images"] == 48
    assert told["parity"]["relative_error"] < 1e-4


def test_the_file_says_which_weights_it_is_of_and_what_it_takes(exported: Path) -> None:
    told = {one.key: one.value for one in onnx.load(exported / "int8.onnx").metadata_props}
    assert (told["arcdist.input"], told["backbone"], told["step"]) == ("float", "tiny", "40")


def test_an_onnx_file_of_others_is_quantized_as_it_is(faces: Path, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 3, 5, 5)).astype(np.float32)
    slope = np.linspace(-0.5, 1.25, 8, dtype=np.float32).reshape(8, 1, 1)
    nodes = [
        helper.make_node("Conv", ["data", "weight"], ["maps"], strides=[2, 2]),
        helper.make_node("PRelu", ["maps", "slope"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        helper.make_node("Flatten", ["means"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(slope, "slope")],
    )
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), whole)
    calibration = [f"calibration={faces / 'train.rec'}", "calibration_images=48"]
    assert main(["export", "int8", str(small), f"model={whole}", *calibration]) == 0
    assert "PRelu" not in {node.op_type for node in onnx.load(small).graph.node}  # it has no integer form
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    assert 0.99 < torch.cosine_similarity(load_backbone(small)(images), load_backbone(whole)(images)).min() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["int8", "out.onnx", "model=net.pt"], "calibration: int8 needs images like those that it will meet"),
        (
            ["int8", "out.onnx", "model=net.onnx", "calibration=a.rec", "opset=20"],
            "opset: 20: means nothing for an ONNX",
        ),
        (["int8", "out.onnx", "model=net.pt", "calibration=a.rec", "calibration_images=0"], "must be at least 1"),
    ],
)
def test_what_it_needs_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
