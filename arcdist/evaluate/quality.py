"""Is an embedding's length a measure of its image's quality? Norms beside what can be measured of the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError

Floats = npt.NDArray[np.float64]

MEASURES = ("sharpness", "contrast", "brightness")
_PARTS = 10


@dataclass(frozen=True)
class NormQuality:
    """How norms go with one measure of the images."""

    spearman: float
    """Correlation of ranks, in [-1, 1]; ties share their mean rank. NaN where all images or all norms are alike."""
    measure_by_tenth: list[float]
    """The measure's mean over each tenth of the images, from the lowest on."""
    norm_by_tenth: list[float]
    """The mean norm of the same images."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it; NaN becomes ``null``."""
        known = self.spearman == self.spearman
        return {
            "spearman": self.spearman if known else None,
            "measure_by_tenth": self.measure_by_tenth,
            "norm_by_tenth": self.norm_by_tenth,
        }


def image_quality(pixels: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return ``MEASURES`` of an RGB image, uint8 ``[H, W, 3]``.

    Sharpness is the logarithm of the variance of the Laplacian, contrast and brightness are the standard deviation and
    the mean of the gray image, in [0, 255].
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    sharpness = float(np.log1p(cv2.Laplacian(gray, cv2.CV_64F).var()))
    return sharpness, float(gray.std()), float(gray.mean())


def norm_quality(norms: npt.ArrayLike, qualities: npt.ArrayLike) -> Mapping[str, NormQuality]:
    """Return, by measure, how norms go with it.

    Args:
        norms: ``[N]``.
        qualities: ``[N, 3]``, ``image_quality`` of each image.

    Raises DataError for fewer than ten images and numbers that are not finite.
    """
    norms, qualities = np.asarray(norms, np.float64), np.asarray(qualities, np.float64)
    if len(norms) < _PARTS or qualities.shape != (len(norms), len(MEASURES)):
        raise DataError(f"{len(norms)} norms, qualities {qualities.shape}: of ten images at least, [N] and [N, 3]")
    if not (np.isfinite(norms).all() and np.isfinite(qualities).all()):
        raise DataError("norms and qualities: some are not finite")
    found = {}
    for measure, values in zip(MEASURES, qualities.T):
        tenths = np.array_split(np.argsort(values, kind="stable"), _PARTS)
        means = [[float(of[part].mean()) for part in tenths] for of in (values, norms)]
        found[measure] = NormQuality(_correlation(_ranks(values), _ranks(norms)), *means)
    return found


def _ranks(values: Floats) -> Floats:
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[number]


def _correlation(first: Floats, second: Floats) -> float:
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else float("nan")
