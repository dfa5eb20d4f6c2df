"""What a run reached, for people and for programs: a table, a JSON file, pictures."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from arcdist.errors import DataError
from arcdist.evaluate.metrics import false_accepts_allowed
from arcdist.evaluate.verification import VerificationResult

Floats = npt.NDArray[np.float64]


def results_table(results: Mapping[str, VerificationResult]) -> Table:
    """Return a table of one row an evaluation set, in percent; ``*`` marks a TAR without any false accept."""
    targets = sorted({far for result in results.values() for far in result.tar_at_far}, reverse=True)
    table = Table(title="Verification", title_justify="left", title_style="bold")
    table.add_column("set")
    for heading in ("pairs", "accuracy", *(f"TAR@FAR={far:.0e}" for far in targets), "EER", "AUC"):
        table.add_column(heading.replace("e-0", "e-"), justify="right")
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.pairs:,}",
            f"{100 * result.accuracy:.2f} ± {100 * result.std:.2f}",
            *(_tar(result, far) for far in targets),
            f"{100 * result.eer:.2f}",
            f"{100 * result.auc:.3f}",
        )
    if any(not _allows_one(result, far) for result in results.values() for far in result.tar_at_far):
        table.caption = "* without any false accept: one would be more than this share of the impostor pairs"
        table.caption_justify = "left"
    return table


def _tar(result: VerificationResult, far: float) -> str:
    if far not in result.tar_at_far:
        return "–"
    return f"{100 * result.tar_at_far[far]:.2f}{'' if _allows_one(result, far) else '*'}"


def _allows_one(result: VerificationResult, far: float) -> bool:
    return false_accepts_allowed(far, result.pairs - result.genuine) > 0


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object; a reader sees the old file or the whole new one, never a part.

    Raises DataError where the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8 as a whole; see ``write_json``."""
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def draw(
    folder: str | Path,
    *,
    steps: Sequence[int] = (),
    loss: Sequence[float] = (),
    cosines: Mapping[str, tuple[Floats, Floats]],
    results: Mapping[str, VerificationResult],
    accuracies: Mapping[str, tuple[Sequence[int], Sequence[float]]] | None = None,
    changes: Mapping[int, str] | None = None,
    ending: str = "png",
) -> list[Path]:
    """Write ``loss.png``, ``angles.png`` and ``roc.png`` to a folder; return the paths of those that were drawn.

    Without a loss there is no first, without an evaluation set there are no others. The folder is made where it is
    missing.

    Args:
        steps: ``[N]``, the steps at which the loss was recorded.
        loss: ``[N]``.
        cosines: by evaluation set, those of genuine and of impostor pairs, as ``pair_cosines`` gives them.
        results: by evaluation set; the mean of the folds' thresholds is drawn.
        accuracies: by evaluation set, steps and accuracies of the evaluations during training.
        changes: by step, what of the training changed there.
        ending: png or svg.

    Raises DataError where the folder cannot be written.
    """
    from arcdist.evaluate import plots  # matplotlib takes a second to import

    drawn: list[Path] = []

    def picture(name: str) -> Path:
        drawn.append(Path(folder, f"{name}.{ending}"))
        return drawn[-1]

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if steps:
            plots.loss_curve(picture("loss"), steps, loss, accuracies, changes)
        if cosines:
            thresholds = {name: 1 - float(np.mean(result.thresholds)) / 2 for name, result in results.items()}
            plots.angle_histogram(picture("angles"), cosines, thresholds)
            plots.roc_curve(picture("roc"), cosines)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return drawn
