"""Static quantization of an ONNX file to 8 bits, by onnxruntime: a quarter of the size, and integer products."""

import contextlib
import logging
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from arcdist.backbones.onnx_net import INPUT, need_onnx
from arcdist.errors import DataError
from arcdist.export.written import written


def quantize(source: Path, output: Path, batches: Iterable[np.ndarray], pixels: str) -> None:
    """Write a file that computes in 8 bits what another computes in float32.

    Weights are signed, with a scale for each channel; activations unsigned, with one scale a tensor, by the least and
    the largest value that it takes on real images. Weights use 7 of their bits: on processors without VNNI sums of
    larger products overflow. A PReLU is written as (1 − slope)·ReLU(x) + slope·x, which onnxruntime has integers for;
    what it has none for stays in float32.

    Args:
        source: a float32 ONNX file of one input.
        output: the file that is written.
        batches: images like those that it will meet, as it takes them; a few hundred.
        pixels: which it takes, one of ``PIXELS``; told in the file.

    Errors: DataError where onnxruntime cannot quantize it, or the file cannot be written.
    Cost: two or three times that of embedding the images.
    """
    need_onnx()
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    remaining = iter(batches)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(remaining, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet(), written(output) as aside:
        folded = Path(folder) / "folded.onnx"
        try:
            quant_pre_process(source, folded, skip_symbolic_shape=True)
            model = onnx.load(folded)
            name = model.graph.input[0].name
            _write_prelu_by_parts(model.graph)
            quantize_static(
                model,
                aside,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            model = onnx.load(aside)
            told = {one.key: one.value for one in model.metadata_props if not one.key.startswith("onnx.")}
            onnx.helper.set_model_props(model, {**told, INPUT: pixels})
            onnx.save(model, aside)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{source}: cannot be quantized: {str(error).splitlines()[0]}") from None


def _write_prelu_by_parts(graph: Any) -> None:
    """Replace every PReLU of an ONNX graph, whose slopes are constants, by a ReLU, two products and a sum."""
    from onnx import helper, numpy_helper

    constants = {one.name: one for one in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "PRelu" or node.input[1] not in constants:
            nodes.append(node)
            continue
        (x, slope), y = node.input, node.output[0]
        positive, above, line, rest = (f"{y}_{part}" for part in ("positive", "above", "line", "rest"))
        graph.initializer.append(numpy_helper.from_array(1 - numpy_helper.to_array(constants[slope]), rest))
        nodes += [
            helper.make_node("Relu", [x], [positive], positive),
            helper.make_node("Mul", [positive, rest], [above], above),
            helper.make_node("Mul", [x, slope], [line], line),
            helper.make_node("Add", [above, line], [y], y),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep onnxruntime's advice, which has been followed, from the terminal."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
