"""Where a progress bar is shown: to somebody who looks on, and to nobody who reads what was written."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TypeVar

import rich.progress
from rich.console import Console

T = TypeVar("T")


def shows_bars() -> bool:
    """Return whether standard error is a terminal, or a notebook that can draw one.

    Into a pipe or a file a bar would be thousands of lines, also where FORCE_COLOR lets rich take it for a terminal.
    """
    console = Console(stderr=True)
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return sys.stderr.isatty()


def track(items: Iterable[T], title: str, total: int | None = None, shown: bool = True) -> Iterable[T]:
    """Return the items, under a bar that goes when they end, if anybody sees it.

    Args:
        items: of which ``total`` are expected; None: as many as ``len`` says.
        shown: whether a bar is wanted.
    """
    if not shown or not shows_bars():
        return items
    return rich.progress.track(items, title, total, console=Console(stderr=True), transient=True)
