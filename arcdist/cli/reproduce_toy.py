"""``arcdist reproduce toy``: the two-dimensional toy of the ArcFace paper's Figure 3."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from arcdist.cli.arguments import help_page, parse, wants_help
from arcdist.evaluate.report import write_json
from arcdist.reproduce.toy import LOSSES, PEOPLE, Toy, ToyConfig, train_toy

USAGE = "arcdist reproduce toy [picture=FILE.png] [key=value …] [--json PATH]"


@dataclass
class ToyArguments(ToyConfig):
    """What ``arcdist reproduce toy`` is told."""

    picture: str = field(default="runs/toy.png", metadata={"help": "file for the picture"})
    json: str = field(default="", metadata={"help": "file for the angles"})


def main(arguments: Sequence[str]) -> int:
    """Run ``arcdist reproduce toy`` and return the exit code."""
    if wants_help(arguments):
        print(help_page(USAGE, ToyArguments))
        return 0
    config = parse(ToyArguments, arguments)
    config.validate()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=len(LOSSES) + 1)
        toys = train_toy(config, lambda name: bar.update(task, advance=1, description=f"{name} done"))
    _draw(config, toys)
    print(config.picture)
    if config.json:
        angles = {name: toy.statistics().degrees() for name, toy in toys.items()}
        write_json(config.json, {"toy": asdict(config), "degrees": angles})
    return 0


def _draw(config: ToyArguments, toys: dict[str, Toy]) -> None:
    from arcdist.evaluate.plots_toy import plane_panels  # matplotlib takes a second to import

    Path(config.picture).parent.mkdir(parents=True, exist_ok=True)
    panels = {name: (toy.embeddings.numpy(), toy.centers.numpy(), toy.labels.numpy()) for name, toy in toys.items()}
    note = f"{PEOPLE} people, {config.images} images each, in two dimensions; lines: centers; below: directions alone"
    plane_panels(config.picture, panels, note)
