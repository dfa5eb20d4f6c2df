"""``arcdist export``: a trained backbone in another form, compared with itself."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from arcdist.backbones import takes_any_size
from arcdist.backbones.onnx_net import PIXELS
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.quantization import quantize_and_compare
from arcdist.errors import ConfigError
from arcdist.evaluate.model_source import find_weights, load_model
from arcdist.evaluate.report import write_json
from arcdist.export.graph import GraphConfig
from arcdist.export.hub import export_hub
from arcdist.export.onnx_file import OPSET, export_insightface, export_onnx
from arcdist.export.program import export_program
from arcdist.export.provenance import provenance_of

SUFFIXES = {"hub": "", "onnx": ".onnx", "insightface": ".onnx", "pt2": ".pt2", "int8": ".onnx"}
_GRAPH = {"image_size", "input", "normalize", "opset"}
_KEYS = {  # by kind: those of the keys below that mean something for it, beside what all have
    "hub": {"name"},
    "onnx": _GRAPH,
    "insightface": {"image_size"},
    "pt2": _GRAPH - {"opset"},
    "int8": _GRAPH | {"calibration", "calibration_images", "sets"},
}
USAGE = f"arcdist export {'|'.join(SUFFIXES)} OUT model=RUN|CHECKPOINT|FILE [key=value …] [--json PATH]"


@dataclass
class ExportArguments:
    """What ``arcdist export`` is told."""

    kind: str = field(
        default="",
        metadata={
            "help": "hub (folder of weights, configuration and card) | onnx | insightface (the ONNX that its model_zoo "
            "takes) | pt2 (torch.export) | int8 (ONNX in 8 bits)"
        },
    )
    output: str = field(default="", metadata={"help": "the file or the folder that is written"})
    model: str = field(
        default="", metadata={"help": "a run's or checkpoint's folder, .safetensors, or insightface's .pt"}
    )
    backbone: str = field(default="", metadata={"help": "the network of a .pt; arcdist's own files say it themselves"})
    embedding_dim: int = field(default=512, metadata={"help": "of a .pt"})
    image_size: int = field(default=0, metadata={"help": "height and width in pixels; 0: those that it was trained at"})
    input: str = field(
        default="normalized", metadata={"help": "; ".join(f"{name}: {meaning}" for name, meaning in PIXELS.items())}
    )
    normalize: bool = field(default=False, metadata={"help": "give the embeddings length 1, in the graph"})
    opset: int = field(default=OPSET, metadata={"help": "of ONNX"})
    calibration: str = field(
        default="", metadata={"help": "of int8: images like those it will meet, a .rec, a .bin or a folder"}
    )
    calibration_images: int = field(default=256, metadata={"help": "of int8: how many of them are taken"})
    sets: list[str] = field(
        default_factory=list, metadata={"help": "of int8: verification sets, .bin files, scored before and after"}
    )
    name: str = field(default="", metadata={"help": "what the card calls it; empty: as its run, or as OUT"})
    license: str = field(default="unknown", metadata={"help": "of the weights, an identifier as apache-2.0"})
    json: str = field(default="", metadata={"help": "file for what was written, and how far it is from torch"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("kind", "output", "model"):
            if not getattr(self, key):
                raise ConfigError(f"{key}: is not named; usage: {USAGE}")
        if self.kind not in SUFFIXES:
            raise ConfigError(f"{self.kind!r}: is no kind of export; must be one of {', '.join(SUFFIXES)}")
        suffix = SUFFIXES[self.kind]
        if suffix and Path(self.output).suffix != suffix:
            raise ConfigError(f"output: {self.output!r}: must end in {suffix}")
        if Path(self.model).suffix == ".onnx" and self.kind != "int8":
            raise ConfigError(f"model: {self.model!r}: is an exported file already; name the weights that it is of")
        if self.embedding_dim < 1:
            raise ConfigError(f"embedding_dim: {self.embedding_dim}: must be at least 1")
        self._refuse_idle_keys()
        if self.kind == "int8" and not self.calibration:
            raise ConfigError("calibration: int8 needs images like those that it will meet: a .rec, a .bin or a folder")
        if self.calibration_images < 1:
            raise ConfigError(f"calibration_images: {self.calibration_images}: must be at least 1")
        GraphConfig(self.input, image_size=self.image_size or GraphConfig.image_size).validate()

    def _refuse_idle_keys(self) -> None:
        """Raise ConfigError for a key that would change nothing."""
        is_made = Path(self.model).suffix == ".onnx"
        taken = _KEYS[self.kind] - _GRAPH if is_made else _KEYS[self.kind]
        default = ExportArguments()
        for key in sorted(set().union(*_KEYS.values()) - taken):
            if getattr(self, key) != getattr(default, key):
                of = "an ONNX file, which is as it is" if is_made else f"an export of kind {self.kind}"
                raise ConfigError(f"{key}: {getattr(self, key)}: means nothing for {of}")


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist export`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, ExportArguments))
        return 0
    config = parse(ExportArguments, arguments, positions=("kind", "output"))
    config.validate()
    told = {"kind": config.kind, "output": config.output, "model": config.model} | _export(config)
    if config.json:
        write_json(config.json, told)
    return 0


def _export(config: ExportArguments) -> dict[str, Any]:
    """Write it, say so, and return what is known of it."""
    output, weights = Path(config.output), find_weights(config.model)
    if weights.suffix == ".onnx":
        return _quantize(config, weights)
    provenance = provenance_of(weights, config.backbone, config.embedding_dim)
    model = load_model(str(weights), config.backbone, config.embedding_dim)
    if config.kind == "hub":
        name = config.name or provenance.recipe.get("name") or output.resolve().name
        files = [path.name for path in export_hub(model, output, provenance, name, config.license)]
        print(f"{output}: {', '.join(files)}")
        return {"files": files}
    network, metadata = provenance.network, provenance.metadata(config.license)
    size = config.image_size or network.image_size
    if size != GraphConfig.image_size and not takes_any_size(network.backbone):
        raise ConfigError(f"image_size: {size}: {network.backbone} takes images of 112 pixels only")
    graph = GraphConfig(config.input, config.normalize, size)
    if config.kind == "int8":
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "float32.onnx"
            with _busy(whole):
                parity = export_onnx(model, whole, graph, metadata, opset=config.opset)
            return {"parity": parity.as_dict(), **_quantize(config, whole)}
    with _busy(output):
        if config.kind == "pt2":
            parity, made = export_program(model, output, graph, metadata), "torch.export"
        elif config.kind == "insightface":
            parity, made = export_insightface(model, output, size, metadata), f"ONNX of opset {OPSET}"
        else:
            parity = export_onnx(model, output, graph, metadata, opset=config.opset)
            made = f"ONNX of opset {config.opset}"
    print(f"{output}: {made}, {output.stat().st_size / 1e6:.1f} MB, any batch; takes {PIXELS[graph.input]}")
    print(f"against torch, {parity}")
    return {"made": made, **asdict(graph), "parity": parity.as_dict()}


def _busy(path: Path) -> Status:
    return Console(stderr=True).status(f"tracing the network, writing {path.name}, comparing it with torch")


def _quantize(config: ExportArguments, whole: Path) -> dict[str, Any]:
    return quantize_and_compare(
        whole, Path(config.output), config.calibration, config.calibration_images, list(config.sets)
    )
