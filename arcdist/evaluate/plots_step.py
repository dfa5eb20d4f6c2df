"""A picture of one training step: a lane of named parts for each rank, and one of its collectives."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from arcdist.evaluate.plots import MUTED, SERIES, STYLE, WIDTH_IN

Lane = Sequence[tuple[str, float, float]]  # name, start and end in milliseconds


def step_lanes(path: Path, lanes: Sequence[tuple[str, Lane]], names: Sequence[str], note: str) -> None:
    """Write the picture.

    Args:
        path: .png or .svg.
        lanes: what stands beside a lane, and its stretches; a name that is not among ``names`` is drawn grey.
        names: in the order of the legend.
        note: below the title.
    """
    colors = {name: (*SERIES, "#000000")[index % (len(SERIES) + 1)] for index, name in enumerate(names)}
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.5 + 0.42 * len(lanes)))
        axes = figure.add_subplot()
        for row, (_, stretches) in enumerate(lanes):
            for name, start, end in stretches:
                axes.barh(row, end - start, left=start, height=0.7, color=colors.get(name, MUTED), linewidth=0)
        axes.set_yticks(range(len(lanes)), [label for label, _ in lanes])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlabel("milliseconds")
        axes.set_title("One training step")
        axes.text(0, 1.04, note, transform=axes.transAxes, color=MUTED, va="bottom")
        legend = [Patch(color=colors[name], label=name) for name in names]
        legend.append(Patch(color=MUTED, label="collective"))
        figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path)
