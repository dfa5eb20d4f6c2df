"""Which checkpoints stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOWER_IS_BETTER = ".eer"


def beats(metric: str, value: float, others: Mapping[Path, Mapping[str, Any]]) -> bool:
    """Return whether a value of a metric is better than that of every marked checkpoint.

    Args:
        metric: its name, ``SET.NAME``.
        value: what it is now.
        others: checkpoints and their markers.
    """
    found = best(metric, others)
    return found is None or _rank(metric, value) > _rank(metric, others[found]["metrics"][metric])


def best(metric: str, marked: Mapping[Path, Mapping[str, Any]]) -> Path | None:
    """Return the checkpoint with the best value of a metric, the earliest of equals; None where none has it."""
    having = [path for path in sorted(marked) if metric in marked[path]["metrics"]]
    return max(having, key=lambda path: _rank(metric, marked[path]["metrics"][metric]), default=None)


def _rank(metric: str, value: float) -> float:
    return -value if metric.endswith(_LOWER_IS_BETTER) else value


def too_many(
    marked: Mapping[Path, Mapping[str, Any]], newest: Path, keep: int, keep_every: int = 0, metric: str = ""
) -> list[Path]:
    """Return the checkpoints that need not stay.

    Args:
        marked: all of a run, with their markers; what is not marked does not count.
        newest: the one that was just written. What is newer comes from before the run went back to an older one: it is
            not of this history.
        keep: how many of the newest stay.
        keep_every: multiples of so many steps stay too; 0: none.
        metric: the one that is best by it stays too; empty: none.
    """
    step = {path: marker["step"] for path, marker in marked.items()}
    history = {path: marked[path] for path in sorted(marked) if step[path] <= step[newest]}
    stay = set(list(history)[-keep:])
    stay |= {path for path in history if keep_every and step[path] % keep_every == 0}
    if metric and (kept := best(metric, history)):
        stay.add(kept)
    return [path for path in sorted(marked) if path not in stay]
