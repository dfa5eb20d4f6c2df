"""``arcdist evaluate``: a checkpoint, other projects' weights, or embeddings, on verification sets."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from arcdist.cli import evaluate_angles, evaluate_history, evaluate_protocol, evaluate_quality
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.evaluate_pictures import draw_scores
from arcdist.cli.picture_files import PictureArguments
from arcdist.errors import ConfigError
from arcdist.evaluate.model_source import image_size_of, load_model
from arcdist.evaluate.protocols.registry import PROTOCOLS
from arcdist.evaluate.report import results_table, write_json
from arcdist.evaluate.sets import EvaluateConfig, Grid, Scored, read_sets, score_sets
from arcdist.evaluate.verification import pair_cosines, read_embeddings, verify
from arcdist.margins import Combined
from arcdist.margins.unnormalized import ASoftmax
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.precision import PRECISIONS, choose_precision
from arcdist.runtime.world import RuntimeConfig, World, open_world

ANALYSES = {"angles": evaluate_angles.main, "history": evaluate_history.main, "quality": evaluate_quality.main}
USAGE = "arcdist evaluate MODEL sets=[FILE.bin,…] [key=value …] [--json PATH]"
PAPER_MARGINS = {
    "Norm-softmax (1, 0, 0)": Combined(m2=0.0),
    "A-Softmax (4, 0, 0)": ASoftmax(blend=0.0, blend_min=0.0),
    "SphereFace (1.35, 0, 0)": Combined(m1=1.35, m2=0.0),
    "ArcFace (1, 0.5, 0)": Combined(m2=0.5),
    "CosFace (1, 0, 0.35)": Combined(m2=0.0, m3=0.35),
    "CM1 (1, 0.3, 0.2)": Combined(m2=0.3, m3=0.2),
    "CM2 (0.9, 0.4, 0.15)": Combined(m1=0.9, m2=0.4, m3=0.15),
}


@dataclass
class EvaluateArguments(PictureArguments):
    """What ``arcdist evaluate`` is told."""

    model: str = field(
        default="",
        metadata={
            "help": "a run's or checkpoint's folder, .safetensors, insightface's .pt, .onnx, or embeddings .npz/.npy"
        },
    )
    sets: list[str] = field(default_factory=list, metadata={"help": "verification sets, .bin files"})
    backbone: str = field(default="", metadata={"help": "the network of a .pt; arcdist's own files say it themselves"})
    embedding_dim: int = field(default=512, metadata={"help": "of a .pt"})
    image_size: int = field(
        default=0,
        metadata={"help": "height and width in pixels; 0: those that the file says it was trained at, or 112"},
    )
    flip: bool = field(default=True, metadata={"help": "add the embedding of the mirrored image, as the field does"})
    batch_size: int = field(default=128, metadata={"help": "images in one forward pass of a rank"})
    precision: str = field(default="fp32", metadata={"help": " | ".join(PRECISIONS)})
    grid: str = field(default="insightface", metadata={"help": "thresholds tried: insightface (0.01 apart) | exact"})
    json: str = field(default="", metadata={"help": "file for the result"})
    hardest: int = field(
        default=0, metadata={"help": "of pictures: also sheets of so many genuine and impostor pairs judged worst"}
    )
    analysis: str = field(
        default="",
        metadata={
            "help": "margins: target logits and decision boundaries of the paper's losses, no model; or one with other "
            f"keys, see analysis=NAME --help: {', '.join(ANALYSES)}"
        },
    )
    protocol: str = field(
        default="",
        metadata={
            "help": f"a benchmark by its own lists, which takes other keys: see protocol=NAME --help "
            f"({', '.join(PROTOCOLS)})"
        },
    )
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        if self.analysis not in ("", "margins"):
            raise ConfigError(f"analysis: {self.analysis!r}: must be one of margins, {', '.join(ANALYSES)}")
        if self.analysis:
            if self.model or self.sets or not self.pictures:
                raise ConfigError(f"analysis: {self.analysis} takes no model and no sets, and needs pictures=FOLDER")
            return
        if not self.model:
            raise ConfigError(f"no model is named; usage: {USAGE}")
        if self.grid not in ("insightface", "exact"):
            raise ConfigError(f"grid: {self.grid!r}: must be insightface or exact")
        if _holds_embeddings(self.model) and self.sets:
            raise ConfigError("sets: a file of embeddings says itself which pairs it is of; leave sets out")
        if not self.sets and not _holds_embeddings(self.model):
            raise ConfigError("sets: none is named; give one or more .bin files: sets=[lfw.bin]")
        if self.hardest < 0 or (self.hardest and (not self.pictures or _holds_embeddings(self.model))):
            raise ConfigError(f"hardest: {self.hardest}: must be at least 0, with pictures=FOLDER and sets= of images")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: {self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if self.embedding_dim < 1 or (self.image_size and self.image_size < 16):
            raise ConfigError("embedding_dim and image_size: must be at least 1 and 16")
        EvaluateConfig(batch_size=self.batch_size).validate()
        self.runtime.validate()


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist evaluate`` and return the exit code."""
    if protocol := _value_of("protocol", arguments):
        return evaluate_protocol.main(arguments, protocol)
    if (analysis := _value_of("analysis", arguments)) in ANALYSES:
        return ANALYSES[analysis](arguments)
    if wants_help(arguments):
        print(help_page(USAGE, EvaluateArguments))
        return 0
    config = parse(EvaluateArguments, arguments, positions=("model",))
    config.validate()
    if config.analysis:
        _draw_margins(config)
        return 0
    if _holds_embeddings(config.model):
        _tell(config, _score_embeddings(config))
        return 0
    world = open_world(config.runtime)
    set_up_log(world.rank)
    scores = _score_model(config, world)
    if world.is_first:
        _tell(config, scores)
    return 0


def _value_of(key: str, arguments: Sequence[str]) -> str:
    """Return what a key is set to, empty where it is not: it decides which other keys there are."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if argument == f"--{key}":
            return following
        if argument.removeprefix("--").startswith(f"{key}="):
            return argument.partition("=")[2]
    return ""


def _draw_margins(config: EvaluateArguments) -> None:
    from arcdist.evaluate import plots_margins  # matplotlib takes a second to import

    logits, boundaries = config.picture("target_logits"), config.picture("boundaries")
    curves = plots_margins.target_logit_curves(logits, PAPER_MARGINS)
    plots_margins.decision_boundaries(boundaries, PAPER_MARGINS)
    print(logits, boundaries, sep="\n")
    if config.json:
        write_json(config.json, {"target_logit_over_scale_by_degree": curves})


def _holds_embeddings(path: str) -> bool:
    return Path(path).suffix in (".npz", ".npy")


def _score_embeddings(config: EvaluateArguments) -> dict[str, Scored]:
    embeddings, same = read_embeddings(config.model)
    result = verify(embeddings, same, grid=cast(Grid, config.grid))
    return {Path(config.model).stem: Scored(result, pair_cosines(embeddings, same))}


def _score_model(config: EvaluateArguments, world: World) -> dict[str, Scored]:
    collectives.from_rank_0(lambda: _look_at(config))
    model = load_model(config.model, config.backbone, config.embedding_dim).to(world.device)
    return score_sets(
        model.to(memory_format=torch.channels_last),  # ty: ignore[no-matching-overload]
        read_sets(config.sets),
        EvaluateConfig(flip=config.flip, batch_size=config.batch_size),
        device=world.device,
        image_size=config.image_size or image_size_of(config.model),
        precision=choose_precision(config.precision, world.device),
        grid=cast(Grid, config.grid),
    )


def _look_at(config: EvaluateArguments) -> None:
    """Read what every rank will read, so that a fault is told once."""
    read_sets(config.sets)
    load_model(config.model, config.backbone, config.embedding_dim)


def _tell(config: EvaluateArguments, scores: dict[str, Scored]) -> None:
    results = {name: scored.result for name, scored in scores.items()}
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(results_table(results))
    if config.json:
        answer: dict[str, Any] = {"model": config.model, "flip": config.flip, "grid": config.grid}
        write_json(config.json, answer | {"sets": {name: result.as_dict() for name, result in results.items()}})
    if config.pictures:
        sets = read_sets(config.sets) if config.hardest else {}
        for picture in draw_scores(config.pictures, scores, sets, config.hardest, config.picture_format):
            print(picture)
