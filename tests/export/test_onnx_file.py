"""``arcdist export onnx``, ``insightface`` and ``pt2``: what others run gives what torch gives."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from arcdist.backbones import create_backbone
from arcdist.backbones.mobilefacenet import MobileFaceNet
from arcdist.backbones.vit import VisionTransformer
from arcdist.cli.main import main
from arcdist.errors import ConfigError
from arcdist.export.graph import Graph, GraphConfig
from arcdist.export.onnx_file import export_insightface, export_onnx
from arcdist.export.parity import ExportError, compare

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


def _images(pixels: np.ndarray) -> torch.Tensor:
    """Return the images that backbones take: planes in [-1, 1]."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.5) / 127.5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """Return a narrow iResNet whose BatchNorms have seen faces, in eval mode, and the file of its weights."""
    torch.manual_seed(0)
    model = create_backbone("small_thin", 16)
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 3, 112, 112) * 2 - 1)
    path = tmp_path_factory.mktemp("a_secret_place") / "net.safetensors"
    save_file(model.state_dict(), path, {"backbone": "small_thin", "embedding_dim": "16", "step": "20"})
    return model.eval(), path


@pytest.fixture(scope="module")
def exported(weights: tuple[nn.Module, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``uint8.onnx``, which takes bytes and gives unit embeddings, and ``uint8.json``."""
    folder = tmp_path_factory.mktemp("exported")
    arguments = ["onnx", str(folder / "uint8.onnx"), f"model={weights[1]}", "input=uint8", "normalize=true"]
    assert main(["export", *arguments, "license=mit", "--json", str(folder / "uint8.json")]) == 0
    return folder


def test_bytes_of_a_decoder_become_unit_embeddings_in_batches_of_any_size(
    weights: tuple[nn.Module, Path], exported: Path
) -> None:
    session = onnxruntime.InferenceSession(exported / "uint8.onnx")
    with torch.inference_mode():
        expected = nn.functional.normalize(weights[0](_images(PIXELS))).numpy()
    for rows in (1, 2, 5):
        (given,) = session.run(["embedding"], {"images": PIXELS[:rows]})
        np.testing.assert_allclose(given, expected[:rows], atol=1e-5)


def test_the_file_states_its_opset_and_where_its_weights_come_from(exported: Path) -> None:
    model = onnx.load(exported / "uint8.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    told = {one.key: one.value for one in model.metadata_props}
    assert (told["arcdist.input"], told["backbone"], told["license"]) == ("uint8", "small_thin", "mit")
    assert (told["step"], told["mean"]) == ("20", "127.5")


def test_batch_norms_that_follow_a_convolution_are_folded_into_it(exported: Path) -> None:
    nodes = onnx.load(exported / "uint8.onnx").graph.node
    behind = [node.op_type for node in nodes for name in node.output for one in nodes if name in one.input
              if node.op_type == "Conv" and one.op_type == "BatchNormalization"]  # fmt: skip
    assert not behind
    assert {"Shape", "Expand", "Identity", "Constant"}.isdisjoint(node.op_type for node in nodes)


def test_how_far_it_is_from_torch_is_told(exported: Path) -> None:
    told = json.loads((exported / "uint8.json").read_text())
    assert 0 < told["parity"]["relative_error"] < 1e-4
    assert told["parity"]["cosine"] > 0.99999
    assert (told["input"], told["normalize"], told["image_size"]) == ("uint8", True, 112)


def test_insightface_would_take_it_for_a_network_of_recognition(
    weights: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    """By what its ``model_zoo.py`` and ``arcface_onnx.py`` look at, fed as ``ArcFaceONNX.get_feat`` does."""
    path = tmp_path / "theirs.onnx"
    assert main(["export", "insightface", str(path), f"model={weights[1]}"]) == 0
    session = onnxruntime.InferenceSession(path)
    ((given, outputs),) = [(one, session.get_outputs()) for one in session.get_inputs()]
    assert (given.name, given.shape, given.type) == ("input.1", ["batch", 3, 112, 112], "tensor(float)")
    assert len(outputs) == 1
    first = [node.name for node in onnx.load(path).graph.node[:8]]
    assert not any(name.startswith(("Sub", "_minus", "Mul", "_mul")) for name in first)  # so mean = std = 127.5
    bgr = [image[:, :, ::-1] for image in PIXELS]
    blob = cv2.dnn.blobFromImages(bgr, 1.0 / 127.5, (112, 112), (127.5, 127.5, 127.5), swapRB=True)
    with torch.inference_mode():
        expected = weights[0](_images(PIXELS)).numpy()
    np.testing.assert_allclose(session.run(None, {"input.1": blob})[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MobileFaceNet(blocks=(1, 1, 1, 1), widening=1, embedding_dim=8),
        lambda: VisionTransformer(width=32, depth=2, embedding_dim=8, mask_ratio=0.1),
    ],
    ids=["mobilefacenet", "vit"],
)
def test_the_other_families_agree_with_torch(build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parity = export_onnx(build().eval(), tmp_path / "net.onnx", GraphConfig(), {}, opset=20)
    assert parity.relative_error < 1e-4
    assert onnx.load(tmp_path / "net.onnx").opset_import[0].version == 20


def test_an_archive_of_torch_gives_the_same_in_batches_of_any_size(
    weights: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    assert main(["export", "pt2", str(tmp_path / "net.pt2"), f"model={weights[1]}", "input=float"]) == 0
    program = torch.export.load(tmp_path / "net.pt2").module()
    with torch.inference_mode():
        expected = weights[0](_images(PIXELS))
        for rows in (1, 5):
            given = program(torch.from_numpy(PIXELS[:rows]).permute(0, 3, 1, 2).float())
            torch.testing.assert_close(given, expected[:rows])
    assert weights[1].parent.name.encode() not in (tmp_path / "net.pt2").read_bytes()


def test_an_archive_that_cannot_be_written_is_named(
    weights: tuple[nn.Module, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".partial-net.pt2").mkdir()
    assert main(["export", "pt2", str(tmp_path / "net.pt2"), f"model={weights[1]}"]) == 1
    assert "net.pt2: cannot be written: Is a directory" in capsys.readouterr().err


def test_no_place_on_this_machine_is_in_the_file(weights: tuple[nn.Module, Path], exported: Path) -> None:
    content = (exported / "uint8.onnx").read_bytes()
    for place in (weights[1].parent.name, str(Path(__file__).parent.parent.parent)):
        assert place.encode() not in content


def test_what_differs_from_its_network_is_refused() -> None:
    graph = Graph(create_backbone("tiny", 8), GraphConfig())
    with pytest.raises(ExportError, match=r"net\.onnx: is not what it was made of: 4 images: embeddings differ by"):
        compare(graph, lambda images: graph(images) * 1.01, "net.onnx")
    assert compare(graph, graph, "net.onnx").relative_error == 0


def test_a_network_that_has_diverged_is_refused() -> None:
    model = create_backbone("tiny", 8)
    model.get_parameter("features.bias").data.fill_(torch.nan)
    graph = Graph(model, GraphConfig())
    with pytest.raises(ExportError, match="not finite"):
        compare(graph, graph, "net.onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "out.pt"], "output: 'out.pt': must end in .onnx"),
        (["onnx", "out.onnx", "opset=11"], "opset: 11: must be from 18 to"),
        (["onnx", "out.onnx", "input=bytes"], "input: 'bytes': must be one of normalized, float, uint8"),
        (["onnx", "out.onnx", "image_size=96"], "image_size: 96: small_thin takes images of 112 pixels only"),
        (["onnx", "out.onnx", "image_size=9999"], "image_size: 9999: must be from 16 to 1024"),
        (["onnx", "out.onnx", "sets=[a.bin]"], "sets: ['a.bin']: means nothing for an export of kind onnx"),
        (["insightface", "out.onnx", "normalize=true"], "normalize: True: means nothing for an export of kind insigh"),
        (["pt2", "out.pt2", "opset=20"], "opset: 20: means nothing for an export of kind pt2"),
        (["onnx", "out.onnx", "model=other.onnx"], "model: 'other.onnx': is an exported file already"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(
    weights: tuple[nn.Module, Path], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if any("model=" in argument for argument in arguments) else [f"model={weights[1]}"]
    assert main(["export", *arguments, *model]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("size", [32, 120, 192])
def test_a_size_that_insightface_takes_for_another_kind_of_network_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"image_size: {size}: insightface takes"):
        export_insightface(create_backbone("tiny", 8), tmp_path / "net.onnx", size, {})


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    weights: tuple[nn.Module, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert main(["export", "onnx", str(tmp_path / "net.onnx"), f"model={weights[1]}"]) == 2
    assert "ONNX needs onnxscript: pip install 'arcdist[export]'" in capsys.readouterr().err
