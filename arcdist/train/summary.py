"""What a finished run leaves: ``summary.json``, its pictures, and a table on the terminal."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import arcdist
from arcdist.evaluate.report import draw, results_table, write_json
from arcdist.evaluate.sets import Scored
from arcdist.train.metrics import Metrics


def machine() -> dict[str, Any]:
    """Return what the run was made on: processor, cores, versions."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {
            "arcdist": arcdist.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def reached(scores: Mapping[str, Scored], history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return accuracy and spread of the first set, what it was before the first step, and every set's result."""
    summary: dict[str, Any] = {"sets": {name: scored.result.as_dict() for name, scored in scores.items()}}
    if scores:
        name, (result, _) = next(iter(scores.items()))
        summary |= {"set": name, "accuracy": result.accuracy, "std": result.std}
        at_start = [record for record in history if record["step"] == 0 and f"{name}/accuracy" in record]
        if at_start:
            summary["accuracy_at_start"] = at_start[0][f"{name}/accuracy"]
    return summary


def leave(
    folder: Path, summary: dict[str, Any], scores: Mapping[str, Scored], metrics: Metrics, json: str = ""
) -> None:
    """Write the summary and the pictures, put the pictures on TensorBoard, and print what was reached."""
    write_json(folder / "summary.json", summary)
    if json:
        write_json(json, summary)
    history = metrics.history()
    steps, losses = _series(history, "loss")
    pictures = draw(
        folder,
        steps=steps,
        loss=losses,
        cosines={name: scored.cosines for name, scored in scores.items()},
        results={name: scored.result for name, scored in scores.items()},
        accuracies={name: _series(history, f"{name}/accuracy") for name in scores},
        changes={step: f"images of {size} px" for step, size in summary["image_size_changes"].items()},
    )
    for picture in pictures:
        metrics.show_picture(f"pictures/{picture.stem}", picture, summary["steps"])
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    if scores:
        console.print(results_table({name: scored.result for name, scored in scores.items()}))
        console.print(
            f"{summary['set']}: {100 * summary['accuracy']:.2f} ± {100 * summary['std']:.2f} %"
            + (f" (at the start {100 * summary['accuracy_at_start']:.2f} %)" if "accuracy_at_start" in summary else "")
        )
    console.print(
        f"{summary['images_seen']:,} images in {summary['seconds']:,.0f} s of training: "
        f"{summary['images_per_s']:,.0f} images/s on {summary['world_size']} × {summary['device']} in "
        f"{summary['precision']}"
    )
    console.print(f"{folder}: summary.json, model.safetensors, {', '.join(picture.name for picture in pictures)}")


def _series(history: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(record["step"], record[key]) for record in history if key in record]
    return [step for step, _ in points], [value for _, value in points]


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
