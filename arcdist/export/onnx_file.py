"""A backbone as an ONNX file, compared with torch under onnxruntime before it gets its name."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from arcdist.backbones.onnx_net import INPUT, need_onnx
from arcdist.errors import ConfigError
from arcdist.export.graph import Graph, GraphConfig, trace
from arcdist.export.parity import Parity, compare
from arcdist.export.written import written

OPSETS = (18, 23)  # what the exporter writes
OPSET = 18
_INSIGHTFACE_INPUT = "input.1"  # what its own files call it; whoever feeds them by name looks for that


def export_onnx(
    backbone: nn.Module,
    path: Path,
    config: GraphConfig,
    metadata: Mapping[str, str],
    *,
    opset: int = OPSET,
    input_name: str = "images",
) -> Parity:
    """Write an ONNX file of any batch size, BatchNorm folded into convolutions, and return its parity with torch.

    Args:
        backbone: in float32, on the CPU.
        path: of the file; one file, its weights in it.
        config: what the graph takes and gives.
        metadata: goes into the file's properties.
        opset: of the file.
        input_name: of the images; the output is called ``embedding``.

    Errors: ExportError where onnxruntime gives something else; ConfigError for an opset that cannot be written, and
        where the packages are not installed; DataError where the file cannot be written.
    Cost: 10 to 30 seconds; twice the weights in memory.
    """
    need_onnx()
    import onnx
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ConfigError(f"opset: {opset}: must be from {OPSETS[0]} to {OPSETS[1]}")
    graph = Graph(backbone, config)
    with _quiet():
        program = torch.onnx.export(
            trace(graph),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[input_name],
            output_names=["embedding"],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # every node would name files of this machine
    program.model.metadata_props.update({**metadata, INPUT: config.input})
    program.model.producer_name = "arcdist"
    # The oldest that knows the opset, so that older programs read it.
    program.model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    with written(path) as aside:
        program.save(aside, external_data=False)
        return compare(graph, _runner(aside), str(path))


def export_insightface(backbone: nn.Module, path: Path, image_size: int, metadata: Mapping[str, str]) -> Parity:
    """Write an ONNX file that insightface's ``model_zoo.get_model`` takes for a network of recognition.

    It goes by the image's size, and scales pixels itself, (x − 127.5) / 127.5, unless a node among the first eight is
    named ``Sub…`` and another ``Mul…``; so the graph takes scaled ones, and its nodes are called otherwise. Source:
    insightface's python-package, ``model_zoo/model_zoo.py`` and ``model_zoo/arcface_onnx.py``.

    Errors: as `export_onnx`; ConfigError for a size that it takes for another kind of network.
    """
    if image_size < 112 or image_size % 16 or image_size == 192:
        raise ConfigError(
            f"image_size: {image_size}: insightface takes a network for one of recognition at 112 pixels and above, in "
            "multiples of 16, but for 192"
        )
    config = GraphConfig(input="normalized", image_size=image_size)
    return export_onnx(backbone, path, config, metadata, input_name=_INSIGHTFACE_INPUT)


def _runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Return an ONNX file under onnxruntime, as a function of what the graph takes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda batch: torch.from_numpy(np.asarray(session.run(None, {images.name: batch.numpy()})[0]))


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the exporter's notes to its own developers from the terminal."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
