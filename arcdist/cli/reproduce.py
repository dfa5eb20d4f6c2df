"""``arcdist reproduce``: a table of the ArcFace paper, trained again cell by cell."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from arcdist.cli import reproduce_toy
from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.cli.compose import compose_config
from arcdist.cli.reproduce_pictures import draw_table
from arcdist.errors import ConfigError
from arcdist.evaluate.report import write_json
from arcdist.reproduce.cell import cell_path, run_cell, train_start
from arcdist.reproduce.gathered import gather, spread
from arcdist.reproduce.markdown import block, put_into
from arcdist.reproduce.paper import TABLES, Method
from arcdist.reproduce.table import collect, printed, read_cell
from arcdist.runtime import collectives
from arcdist.runtime.log import set_up_log
from arcdist.runtime.world import open_world
from arcdist.train.config import TrainConfig

USAGE = "arcdist reproduce table2|table3|table4|toy [methods=[NAME,…]] [key=value …] [--json PATH]"
_WIDTH = 190
_WITHOUT_SCALE = ("margin=softmax", "margin=a_softmax")
_SEED_OF_START = 100  # no cell's


@dataclass
class ReproduceArguments:
    """What ``arcdist reproduce`` is told."""

    table: str = field(default="", metadata={"help": "table2 | table3 | table4"})
    methods: list[str] = field(default_factory=list, metadata={"help": "rows of the table to train; empty: all"})
    seeds: int = field(default=3, metadata={"help": "runs of each method, of seeds 0, 1, …"})
    recipe: str = field(
        default="reproduce_scaled", metadata={"help": "what all methods share; the paper's own is reproduce_casia"}
    )
    scale: float = field(default=24.0, metadata={"help": "of every margin that has one; reproduce_casia wants 64"})
    start: int = field(
        default=700,
        metadata={
            "help": "steps of plain softmax that train one net, from which every cell goes on; 0: cells begin with "
            "random weights, as reproduce_casia wants it"
        },
    )
    set: list[str] = field(
        default_factory=list, metadata={"help": "more of a run's keys: set=[data.path=F.rec,train.steps=800]"}
    )
    cells: int = field(default=-1, metadata={"help": "cells to train now at most; 0: only print; -1: all that lack"})
    folder: str = field(default="runs/reproduce", metadata={"help": "where cells and runs go"})
    cells_from: str = field(
        default="", metadata={"help": "file of gathered cells, which count as there: docs/results/reproduction.json"}
    )
    cells_to: str = field(default="", metadata={"help": "file for all cells of the folder, without their seconds"})
    json: str = field(default="", metadata={"help": "file for the table"})
    markdown: str = field(
        default="", metadata={"help": "file whose marked block of the table is written anew; a new one holds only that"}
    )
    picture: str = field(
        default="", metadata={"help": "file for the table as bars, .png or .svg; FILE_orderings is drawn beside it"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.table not in TABLES:
            raise ConfigError(f"{self.table or 'nothing'!r}: must be one of {', '.join(TABLES)}; usage: {USAGE}")
        known = TABLES[self.table].methods
        for name in self.methods:
            if name not in known:
                raise ConfigError(f"methods: {name!r}: no row of {self.table} (known: {', '.join(known)})")
        if self.seeds < 1:
            raise ConfigError(f"seeds: {self.seeds}: must be at least 1")
        if self.start < 0:
            raise ConfigError(f"start: {self.start}: must not be negative")

    @property
    def setting(self) -> dict[str, object]:
        """What cells of one table must have in common."""
        return {"recipe": self.recipe, "scale": self.scale, "start": self.start, "set": list(self.set)}

    @property
    def command(self) -> str:
        """The command that fills the table, without where its cells lie."""
        defaults = ReproduceArguments()
        said = [
            f"{key}={getattr(self, key)}"
            for key in ("seeds", "recipe", "scale", "start")
            if getattr(self, key) != getattr(defaults, key)
        ]
        said += [f"set=[{','.join(self.set)}]"] if self.set else []
        return shlex.join(["arcdist", "reproduce", self.table, *said])


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist reproduce`` and return the exit code."""
    if "toy" in arguments[:1]:
        return reproduce_toy.main(arguments[1:])
    if wants_help(arguments):
        print(help_page(USAGE, ReproduceArguments))
        return 0
    config = parse(ReproduceArguments, arguments, positions=("table",))
    config.validate()
    table, folder, seeds = TABLES[config.table], Path(config.folder), range(config.seeds)
    if config.cells_from:
        spread(config.cells_from, folder)
    methods = dict.fromkeys(map(table.cell_of, config.methods or table.methods))
    asked = [(name, seed) for seed in seeds for name in methods]
    lacking = [(name, seed) for name, seed in asked if not _is_done(config, cell_path(folder, name, seed))]
    todo = lacking[: config.cells] if config.cells >= 0 else lacking
    stages = {cell: _stages(config, _method(cell[0]), *cell) for cell in todo}
    if todo:
        world = open_world(next(iter(stages.values()))[0].runtime)
        set_up_log(world.rank)
        if config.start:
            train_start(_start(config), world)
        for name, seed in todo:
            about = {"method": name, "seed": seed, "setting": config.setting}
            run_cell(stages[name, seed], world, cell_path(folder, name, seed), about)
    if collectives.rank() == 0:
        for name in table.methods:  # also those that are not trained now, but told
            for seed in seeds:
                _is_done(config, cell_path(folder, table.cell_of(name), seed))
        _tell(config, collect(table, folder, seeds) | {"setting": config.setting})
    return 0


def _tell(config: ReproduceArguments, collected: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for each in printed(collected):
        console.print(each)
    if collected["missing"]:
        print(f"missing: {', '.join(collected['missing'])}")
    if config.cells_to:
        print(f"{config.cells_to}: {gather(Path(config.folder), range(config.seeds), config.cells_to)} cells")
    if config.json:
        write_json(config.json, collected)
    if config.markdown:
        put_into(config.markdown, config.table, block(config.table, config.command, collected))
    if config.picture:
        for picture in draw_table(config.picture, collected):
            print(picture)


def _is_done(config: ReproduceArguments, path: Path) -> bool:
    """Return whether a cell is there.

    Errors: ConfigError where it was trained in another setting.
    """
    if not path.exists():
        return False
    setting = read_cell(path).get("setting")
    if setting != config.setting:
        raise ConfigError(f"{path}: was trained with {setting}, not {config.setting}; give another folder=")
    return True


def _method(name: str) -> Method:
    """Return the method that trains a cell; its row may be another table's."""
    return next(table.methods[name] for table in TABLES.values() if name in table.methods)


def _start(config: ReproduceArguments) -> TrainConfig:
    """Return the configuration of the net from which all cells go on."""
    own = [f"folder={_start_folder(config)}", f"train.steps={config.start}", f"seed={_SEED_OF_START}"]
    start = compose_config([f"recipe={config.recipe}", "name=start", "margin=softmax", *config.set, *own])
    start.validate()
    return start


def _start_folder(config: ReproduceArguments) -> Path:
    return Path(config.folder) / "runs" / "start"


def _stages(config: ReproduceArguments, method: Method, name: str, seed: int) -> list[TrainConfig]:
    """Return the configurations of a cell, checked."""
    shared = [
        *(f"recipe={config.recipe}", f"name={name}.seed{seed}", f"seed={seed}", *method.overrides, *config.set),
        f"folder={Path(config.folder) / 'runs' / f'{name}.seed{seed}'}",
    ]
    if config.start:
        shared += [f"init={_start_folder(config)}", "head.initial=class_means"]
    if method.overrides[0] not in _WITHOUT_SCALE:
        shared.append(f"margin.scale={config.scale}")
    first = compose_config(shared)
    stages = [first]
    if method.then:
        images = first.data.images or first.data.synthetic.identities * first.data.synthetic.images_per_identity
        steps = first.train.total_steps(images)
        stages = [compose_config([*shared, f"train.steps={(steps + 1) // 2}"])]
        stages.append(compose_config([*shared, *method.then, f"train.steps={steps}"]))
    for stage in stages:
        stage.validate()
    return stages
