"""``arcdist export``: a trained backbone in another form, compared with itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from arcdist.backbones.onnx_net import PIXELS
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.errors import ConfigError
from arcdist.evaluate.model_source import find_weights, load_model
from arcdist.evaluate.report import write_json
from arcdist.export.graph import GraphConfig
from arcdist.export.hub import export_hub
from arcdist.export.onnx_file import OPSET, export_insightface, export_onnx
from arcdist.export.program import export_program
from arcdist.export.provenance import Provenance, provenance_of

SUFFIXES = {"hub": "", "onnx": ".onnx", "insightface": ".onnx", "pt2": ".pt2"}
USAGE = f"arcdist export {'|'.join(SUFFIXES)} OUT model=RUN|CHECKPOINT|FILE [key=value …] [--json PATH]"


@dataclass
class ExportArguments:
    """What ``arcdist export`` is told."""

    kind: str = field(
        default="",
        metadata={
            "help": "hub (folder of weights, configuration and card) | onnx | insightface (the ONNX that its model_zoo "
            "takes) | pt2 (torch.export)"
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
        if Path(self.model).suffix == ".onnx":
            raise ConfigError(f"model: {self.model!r}: is an exported file already; name the weights that it is of")
        if self.embedding_dim < 1 or (self.image_size and self.image_size < 16):
            raise ConfigError("embedding_dim and image_size: must be at least 1 and 16")
        GraphConfig(self.input).validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist export`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, ExportArguments))
        return 0
    config = parse(ExportArguments, arguments, positions=("kind", "output"))
    config.validate()
    weights = find_weights(config.model)
    provenance = provenance_of(weights, config.backbone, config.embedding_dim)
    model = load_model(str(weights), config.backbone, config.embedding_dim)
    told = _export(config, model, provenance)
    if config.json:
        about = {"kind": config.kind, "output": config.output, "model": config.model}
        write_json(config.json, about | {"backbone": provenance.network.backbone} | told)
    return 0


def _export(config: ExportArguments, model: nn.Module, provenance: Provenance) -> dict[str, Any]:
    """Write it, say so, and return what is known of it."""
    output = Path(config.output)
    if config.kind == "hub":
        name = config.name or provenance.recipe.get("name") or output.resolve().name
        files = [path.name for path in export_hub(model, output, provenance, name, config.license)]
        print(f"{output}: {', '.join(files)}")
        return {"files": files}
    size, metadata = config.image_size or provenance.network.image_size, provenance.metadata(config.license)
    graph = GraphConfig(config.input, config.normalize, size)
    if config.kind == "pt2":
        parity, made = export_program(model, output, graph, metadata), "torch.export"
    elif config.kind == "insightface":
        parity, made = export_insightface(model, output, size, metadata), f"ONNX of opset {OPSET}"
    else:
        parity, made = export_onnx(model, output, graph, metadata, opset=config.opset), f"ONNX of opset {config.opset}"
    print(f"{output}: {made}, {output.stat().st_size / 1e6:.1f} MB, any batch; takes {PIXELS[graph.input]}")
    print(f"against torch, {parity}")
    return {"made": made, "input": graph.input, "normalize": graph.normalize, "image_size": size} | parity.as_dict()
