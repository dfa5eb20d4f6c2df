"""The pictures of ``arcdist evaluate protocol=NAME``: angles, ROC and DET of pairs, and groups as bars."""

from pathlib import Path

from arcdist.cli.picture_files import PictureArguments
from arcdist.errors import DataError
from arcdist.evaluate.protocols.plan import Outcome


def draw_outcome(asked: PictureArguments, outcome: Outcome) -> list[Path]:
    """Write what of an outcome can be drawn to a folder; return the paths.

    Raises DataError where the folder cannot be written.
    """
    from arcdist.evaluate import plots, plots_table  # matplotlib takes a second to import

    drawn = []
    try:
        for name, draw in (
            ("angles", plots.angle_histogram),
            ("roc", plots.roc_curve),
            ("det", plots.det_curve),
        ):
            drawn.append(asked.picture(name))
            draw(drawn[-1], outcome.cosines)
        if outcome.bars:
            groups = list(dict.fromkeys(group for values in outcome.bars.values() for group in values))
            panels = [
                plots_table.BarPanel(heading, {group: [value] for group, value in values.items()}, {}, ours=True)
                for heading, values in outcome.bars.items()
            ]
            drawn.append(asked.picture("groups"))
            plots_table.table_bars(drawn[-1], "Groups of people", "shorter is better", groups, panels)
    except OSError as error:
        raise DataError(f"{error.filename or asked.pictures}: cannot be written: {error.strerror}") from None
    return drawn
