"""``arcdist evaluate RUN analysis=angles``: the angles of the ArcFace paper's Table 3, of a run that was trained."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from torch import Tensor

from arcdist.checkpoint.folder import newest_checkpoint
from arcdist.checkpoint.reader import read_tensor
from arcdist.checkpoint.run_config import RUN_CONFIG, read_run_config
from arcdist.cli.angle_pictures import Cosines, draw_angles
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.network import NetworkArguments, embed_images
from arcdist.cli.picture_files import RunPictureArguments
from arcdist.data.image_lists import LabeledImages
from arcdist.data.sources import DataConfig
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.angles import angle_statistics
from arcdist.evaluate.embed import embed
from arcdist.evaluate.embedded_faces import read_embedded
from arcdist.evaluate.genuine_people import genuine_people
from arcdist.evaluate.model_source import load_model
from arcdist.evaluate.pair_sample import cosines_of, sample_pairs
from arcdist.evaluate.report import write_json
from arcdist.evaluate.sets import read_sets
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.precision import choose_precision
from arcdist.runtime.sharding import shard_rows
from arcdist.runtime.world import World, open_world
from arcdist.train.board import last_step, show_pictures

USAGE = "arcdist evaluate RUN analysis=angles [sets=[FILE.bin,…]] [pictures=FOLDER] [key=value …] [--json PATH]"
COLUMNS = ("W-EC", "W-Inter", "Intra", "Inter")


@dataclass
class _Named:
    model: str = field(default="", metadata={"help": "a run's folder, with its checkpoints and its training set"})
    analysis: str = field(default="angles", metadata={"help": "angles"})
    sets: list[str] = field(default_factory=list, metadata={"help": "verification sets, .bin; empty: those of the run"})
    training: bool = field(default=True, metadata={"help": "also on the training set, which is embedded as a whole"})
    json: str = field(default="", metadata={"help": "file for the angles"})


@dataclass
class AnglesArguments(NetworkArguments, RunPictureArguments, _Named):
    """What ``analysis=angles`` is told."""

    flip: bool = field(default=False, metadata={"help": "add the embedding of the mirrored image; training did not"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if not self.model:
            raise ConfigError(f"no run is named; usage: {USAGE}")
        RunPictureArguments.validate(self)
        NetworkArguments.validate(self)


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist evaluate analysis=angles`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, AnglesArguments))
        return 0
    asked = parse(AnglesArguments, arguments, positions=("model",))
    asked.validate()
    world = open_world(asked.runtime)
    set_up_log(world.rank)
    collectives.from_rank_0(lambda: _look_at(asked))
    run = _read_run(Path(asked.model))
    asked = replace(asked, image_size=asked.image_size or run.data.image_size)
    found: dict[str, Any] = {}
    cosines: dict[str, Cosines] = {}
    if asked.training:
        found["training"], cosines["training"] = _of_training(asked, run, world)
    for name, pairs in read_sets(_sets(asked, run)).items():
        images, people = genuine_people(pairs)
        embeddings = embed(
            load_model(asked.model, asked.backbone, asked.embedding_dim).to(world.device),
            images,
            device=world.device,
            batch_size=asked.batch_size,
            flip=asked.flip,
            image_size=asked.image_size,
            precision=choose_precision(asked.precision, world.device),
            name=name,
        )
        found[name] = _statistics(embeddings, people.numpy(), int(people.max()) + 1, None, world)
        cosines[name] = _cosines(embeddings, people.numpy())
    if world.is_first:
        for name, pair in cosines.items():
            found[name]["pairs_degrees"] = {kind: _spread(each) for kind, each in zip(("genuine", "impostor"), pair)}
        _tell(asked, found)
        if asked.pictures:
            drawn = draw_angles(asked, found, cosines)
            print(*drawn, sep="\n")
            if asked.tensorboard:
                show_pictures(asked.model, drawn, last_step(asked.model))
    return 0


def _look_at(asked: AnglesArguments) -> None:
    """Read what every rank will read, so that a fault is told once."""
    run = _read_run(Path(asked.model))
    load_model(asked.model, asked.backbone, asked.embedding_dim)
    read_sets(_sets(asked, run))
    if asked.training:
        _data(run).open()
    elif not _sets(asked, run):
        raise ConfigError("sets: none is named, the run has none, and training=false: there is nothing to do")


def _read_run(folder: Path) -> DictConfig:
    if not (folder / RUN_CONFIG).is_file():
        raise DataError(f"{folder}: is no run's folder: it holds no {RUN_CONFIG}")
    run = OmegaConf.create(read_run_config(folder))
    if "data" not in run:
        raise DataError(f"{folder}: {RUN_CONFIG} is no run's configuration")
    return run


def _sets(asked: AnglesArguments, run: DictConfig) -> list[str]:
    return list(asked.sets or OmegaConf.select(run, "evaluate.sets") or [])


def _data(run: DictConfig) -> DataConfig:
    try:
        data: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), run.data))
    except OmegaConfBaseException as error:
        raise DataError(f"config.yaml: data: {str(error).splitlines()[0]}") from None
    return data


def _of_training(asked: AnglesArguments, run: DictConfig, world: World) -> tuple[dict[str, Any], Cosines]:
    dataset = _data(run).open()
    with tempfile.TemporaryDirectory() as own:
        output = Path(collectives.broadcast_object(own)) / "training.npy"
        embed_images(asked.model, LabeledImages(dataset, range(len(dataset))), output, asked, world)
        embeddings = read_embedded(output).embeddings
        centers = _centers(Path(asked.model), run, embeddings.shape[1], dataset.num_classes)
        found = _statistics(embeddings, dataset.labels(), dataset.num_classes, centers, world)
        cosines = _cosines(embeddings, dataset.labels())
        collectives.barrier()  # rank 0's folder goes when all have read it
    return found, cosines


def _cosines(embeddings: Tensor, labels: np.ndarray) -> Cosines:
    """Return the cosines of genuine and of random impostor pairs; nothing on ranks that tell nothing."""
    pairs = sample_pairs(labels) if collectives.rank() == 0 else (np.empty((0, 2), np.int64),) * 2
    return cosines_of(embeddings, pairs[0]), cosines_of(embeddings, pairs[1])


def _spread(cosines: np.ndarray) -> dict[str, float | int | None]:
    """Return the angles' number, mean, standard deviation and quantiles, in degrees."""
    degrees = np.degrees(np.arccos(cosines.clip(-1, 1)))
    if not len(degrees):
        return {"pairs": 0}
    quantiles = {f"p{share:02d}": round(float(np.percentile(degrees, share)), 3) for share in (5, 50, 95)}
    return {"pairs": len(degrees), "mean": float(degrees.mean()), "std": float(degrees.std()), **quantiles}


def _centers(folder: Path, run: DictConfig, dim: int, classes: int) -> Tensor | None:
    """Return this rank's rows of the head, one center a class; None of a run that has none such."""
    newest = newest_checkpoint(folder / "checkpoints")
    one_each = OmegaConf.select(run, "head.subcenters") == 1 and OmegaConf.select(run, "losses.softmax") != 0
    if newest is None or not one_each:
        return None
    mine = shard_rows(classes, collectives.rank(), collectives.world_size())
    return read_tensor(newest, "head.centers")[mine.start : mine.stop, :dim].float()  # without a softmax's bias


def _statistics(
    embeddings: Tensor, labels: np.ndarray, classes: int, centers: Tensor | None, world: World
) -> dict[str, Any]:
    mine = shard_rows(len(embeddings), world.rank, world.size)
    part = slice(mine.start, mine.stop)
    rows, people = embeddings[part].to(world.device), torch.from_numpy(labels[part]).to(world.device)
    found = angle_statistics(rows, people, classes, None if centers is None else centers.to(world.device))
    return {"degrees": found.degrees(), "images": found.images, "classes": found.classes}


def _tell(asked: AnglesArguments, found: dict[str, Any]) -> None:
    table = Table(title=f"Mean angles of {asked.model}, degrees", title_justify="left", title_style="bold")
    table.add_column("on")
    for heading in (*COLUMNS, "images", "classes"):
        table.add_column(heading, justify="right")
    for name, each in found.items():
        angles = (each["degrees"][column] for column in COLUMNS)
        told = ("–" if angle is None else f"{angle:.2f}" for angle in angles)
        table.add_row(name, *told, f"{each['images']:,}", f"{each['classes']:,}")
    Console().print(table)
    if asked.json:
        write_json(asked.json, {"model": asked.model, "flip": asked.flip, "angles": found})
