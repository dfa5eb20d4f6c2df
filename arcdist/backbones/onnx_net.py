"""An ONNX file as a backbone: arcdist's own and others', run by onnxruntime."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arcdist.errors import ConfigError, DataError

INPUT = "arcdist.input"  # the entry of a file's metadata that says which pixels it takes
PIXELS = {  # by name: what it is
    "normalized": "float32 [b, 3, H, W] in [-1, 1]",
    "float": "float32 [b, 3, H, W] in [0, 255], scaled in the graph",
    "uint8": "uint8 [b, H, W, 3] in [0, 255], as decoders give it, scaled in the graph",
}
_SCALES = {"Sub", "Mul", "Div", "Add"}
_PASSES = {"Cast", "Transpose", "Identity"}
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def need_onnx() -> None:
    """Raise ConfigError where the packages for ONNX are not installed."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {', '.join(missing)}: pip install 'arcdist[export]'")


class OnnxBackbone(nn.Module):
    """Images ``[b, 3, H, W]`` in [-1, 1] to embeddings ``[b, D]`` float32, like every backbone; it cannot be trained.

    Which pixels the file takes, its metadata says, where arcdist wrote it. Of other files those that subtract and scale
    before anything else take [0, 255], as insightface's older ones; the rest take [-1, 1].

    Args:
        path: with one input, an image, and one output, embeddings.

    Errors: DataError for a file that is no such network; ConfigError where onnxruntime is not installed.
    """

    digest: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        need_onnx()
        import onnxruntime

        self.path = Path(path)
        # The weights are not torch's: their checksum stands for them where a state tells networks apart.
        self.register_buffer("digest", _digest(self.path))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        providers = [name for name in _PROVIDERS if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(_runnable(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime's and protobuf's own classes are of no public name
            raise DataError(f"{path}: no ONNX file that onnxruntime can run: {str(error).splitlines()[0]}") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            raise DataError(
                f"{path}: takes {[one.shape for one in inputs[:3]]} and gives {len(outputs)} outputs; a backbone takes "
                "images and gives embeddings"
            )
        self.input: Any = inputs[0]
        self.pixels = self._pixels()
        fixed = self.input.shape[0]
        self.rows: int | None = fixed if isinstance(fixed, int) else None  # of a batch, where it takes no other

    def _pixels(self) -> str:
        told = self.session.get_modelmeta().custom_metadata_map.get(INPUT, "")
        if told in PIXELS:
            return told
        if self.input.type == "tensor(uint8)":
            return "uint8"
        return "float" if _scales_first(self.path, self.input.name) else "normalized"

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that it takes; 112 where it takes any."""
        side = self.input.shape[1 if self.pixels == "uint8" else 2]
        return side if isinstance(side, int) else 112

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[b, D]``, on the device of the images."""
        pixels = images.float() if self.pixels == "normalized" else images.float() * 127.5 + 127.5
        if self.pixels == "uint8":
            pixels = pixels.round().to(torch.uint8).permute(0, 2, 3, 1)
        batch = np.ascontiguousarray(pixels.cpu().numpy())
        for fixed, given in zip(self.input.shape[1:], batch.shape[1:]):
            if isinstance(fixed, int) and fixed != given:
                raise DataError(f"{self.path}: takes images of {self.input.shape[1:]}, not {list(batch.shape[1:])}")
        parts = _parts(batch, self.rows or len(batch))
        parts = [np.asarray(self.session.run(None, {self.input.name: part})[0]) for part in parts]
        embeddings = np.concatenate(parts)[: len(batch)].astype(np.float32, copy=False)
        return torch.from_numpy(embeddings).to(images.device)


def _parts(batch: np.ndarray, rows: int) -> list[np.ndarray]:
    """Return a batch in parts of so many rows, the last one filled up."""
    missing = -len(batch) % rows
    filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
    return [filled[start : start + rows] for start in range(0, len(filled), rows)]


def _runnable(path: Path) -> str | bytes:
    """Return what a session is made of: the file, or its content without inputs that no node uses, if it has any."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    used = {name for node in model.graph.node for name in node.input}
    kept = [one for one in model.graph.input if one.name in used]
    if len(kept) == len(model.graph.input):
        return str(path)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model.SerializeToString()


def _scales_first(path: Path, name: str) -> bool:
    """Return whether the first thing that a graph does with its input, of that name, is arithmetic."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    while True:
        users = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(users) != 1:
            return False
        if users[0].op_type in _SCALES:
            return True
        if users[0].op_type not in _PASSES:
            return False
        name = users[0].output[0]


def _digest(path: Path) -> Tensor:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
