"""``arcdist export``: a trained backbone in another form, compared with itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.errors import ConfigError
from arcdist.evaluate.model_source import find_weights, load_model
from arcdist.evaluate.report import write_json
from arcdist.export.hub import export_hub
from arcdist.export.provenance import provenance_of

KINDS = ("hub",)
USAGE = f"arcdist export {'|'.join(KINDS)} OUT model=RUN|CHECKPOINT|FILE [key=value …] [--json PATH]"


@dataclass
class ExportArguments:
    """What ``arcdist export`` is told."""

    kind: str = field(default="", metadata={"help": "hub (folder of weights, configuration and card)"})
    output: str = field(default="", metadata={"help": "the file or the folder that is written"})
    model: str = field(
        default="", metadata={"help": "a run's or checkpoint's folder, .safetensors, or insightface's .pt"}
    )
    backbone: str = field(default="", metadata={"help": "the network of a .pt; arcdist's own files say it themselves"})
    embedding_dim: int = field(default=512, metadata={"help": "of a .pt"})
    name: str = field(default="", metadata={"help": "what the card calls it; empty: as OUT"})
    license: str = field(default="unknown", metadata={"help": "of the weights, an identifier as apache-2.0"})
    json: str = field(default="", metadata={"help": "file for what was written"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("kind", "output", "model"):
            if not getattr(self, key):
                raise ConfigError(f"{key}: is not named; usage: {USAGE}")
        if self.kind not in KINDS:
            raise ConfigError(f"{self.kind!r}: is no kind of export; must be one of {', '.join(KINDS)}")
        if self.embedding_dim < 1:
            raise ConfigError("embedding_dim: must be at least 1")


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
    output = Path(config.output)
    files = export_hub(model, output, provenance, config.name or output.resolve().name, config.license)
    print(f"{output}: {', '.join(path.name for path in files)}")
    if config.json:
        write_json(config.json, {"kind": config.kind, "files": [str(path) for path in files]})
    return 0
