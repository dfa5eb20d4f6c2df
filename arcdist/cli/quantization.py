"""Quantization to 8 bits with the images of a user, and what it changes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from arcdist.backbones.onnx_net import OnnxBackbone
from arcdist.data.evalsets import PairSet
from arcdist.data.image_lists import open_images
from arcdist.evaluate.embed import square_pixels
from arcdist.evaluate.report import results_table
from arcdist.evaluate.sets import EvaluateConfig, read_sets, score_sets
from arcdist.export.graph import GraphConfig
from arcdist.export.int8 import quantize
from arcdist.runtime.progress import track

_BATCH = 16  # images in one forward pass


def quantize_and_compare(source: Path, output: Path, calibration: str, images: int, sets: list[str]) -> dict[str, Any]:
    """Write an ONNX file in 8 bits, print what that changes, and return it.

    Args:
        source: an ONNX file in float32.
        output: the file that is written.
        calibration: images like those that it will meet; what ``open_images`` takes.
        images: how many of them are taken, evenly spread.
        sets: verification sets that are scored before and after.

    Errors: DataError for what cannot be read or quantized.
    """
    pairs, before = read_sets(sets), OnnxBackbone(source)
    pixels = _pixels(calibration, images, before.image_size)
    config = GraphConfig(before.pixels, image_size=before.image_size)
    whole = [part for part in pixels.split(before.rows or _BATCH) if before.rows in (None, len(part))]
    shown = track(whole, "calibrating")
    batches = (config.takes(batch).numpy() for batch in shown)
    quantize(source, output, batches, before.pixels)
    after = OnnxBackbone(output)
    told: dict[str, Any] = {"calibration_images": len(pixels), "cosine_to_float32": _cosines(before, after, pixels)}
    sizes_mb = [path.stat().st_size / 1e6 for path in (source, output)]
    print(f"{output}: int8 by {len(pixels)} images, {sizes_mb[0]:.1f} MB before, {sizes_mb[1]:.1f} MB after")
    print(
        "cosine of embeddings before and after: mean {mean:.4f}, least {least:.4f}".format(**told["cosine_to_float32"])
    )
    told |= {"mb_before": sizes_mb[0], "mb_after": sizes_mb[1]}
    if pairs:
        told["sets"] = _scores({"float32": before, "int8": after}, pairs)
    return told


def _scores(nets: Mapping[str, OnnxBackbone], pairs: Mapping[str, PairSet]) -> dict[str, Any]:
    """Score every set by every net, print a table, and return the results, by set and net."""
    scored = {
        name: score_sets(net, pairs, EvaluateConfig(), device=torch.device("cpu"), image_size=net.image_size)
        for name, net in nets.items()
    }
    rows = {f"{pair_set}, {name}": scored[name][pair_set].result for pair_set in pairs for name in nets}
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(results_table(rows))
    return {one: {name: scored[name][one].result.as_dict() for name in nets} for one in pairs}


def _pixels(path: str, count: int, size: int) -> Tensor:
    """Return evenly spread images, uint8 ``[count, size, size, 3]``, or all where there are fewer."""
    images = open_images(path)
    chosen = np.unique(np.linspace(0, len(images.names) - 1, count).round().astype(int)).tolist()
    return torch.from_numpy(np.stack([square_pixels(images.read(i), images.where(i), size) for i in chosen]))


def _cosines(before: OnnxBackbone, after: OnnxBackbone, pixels: Tensor) -> dict[str, float]:
    with torch.inference_mode():
        images = [(part.permute(0, 3, 1, 2) - 127.5) / 127.5 for part in pixels.split(_BATCH)]
        cosines = torch.cat([F.cosine_similarity(before(part), after(part)) for part in images])
    return {"mean": cosines.mean().item(), "least": cosines.min().item()}
