"""Templates: one embedding for all images and videos of a person that a protocol puts together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import DataError
from arcdist.evaluate.scores import unit_rows

Ints = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 16384  # 64 MiB of float64 for 512 dimensions


@dataclass(frozen=True, eq=False)
class Templates:
    """Embeddings of templates, in the order of their ids."""

    ids: Ints
    """``[T]``, rising, each once; not contiguous."""
    embeddings: Tensor
    """``[T, D]``, unit rows."""

    def rows(self, ids: npt.ArrayLike, name: str) -> Ints:
        """Return ``[n]``, the row of each id of the list ``name``. Raises DataError for an id without a template."""
        ids = np.asarray(ids)
        rows = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        unknown = np.flatnonzero(self.ids[rows] != ids)
        if len(unknown):
            raise DataError(
                f"{name}: {len(unknown)} of {len(ids)} template ids are of no template that has images; the first is "
                f"{ids[unknown[0]]}, entry {unknown[0] + 1}"
            )
        return rows

    def of(self, ids: npt.ArrayLike, name: str) -> Tensor:
        """Return the embeddings of these templates, ``[n, D]``. Raises DataError as ``rows`` does."""
        return self.embeddings[torch.from_numpy(self.rows(ids, name)).to(self.embeddings.device)]


def pool_templates(
    embeddings: Tensor,
    template: npt.ArrayLike,
    medium: npt.ArrayLike | None = None,
    *,
    detector_score: npt.ArrayLike | None = None,
    norm_weighting: bool = True,
) -> Templates:
    """Return the templates: the mean inside each medium, summed over the media of a template, at length 1.

    A medium is a still or a video, so that a video of a hundred frames counts as much as a still; its id need be unique
    within its template only. Both steps are linear, so a template is one weighted sum over its images, and no media are
    ever made; sums are in float64. Media are not normalized. Source: insightface ``ijb_11.py:114-150``.

    insightface's scripts name the weights NxDx, and N oppositely: norm weighting is N1 in ``ijb_11.py``,
    ``eval_ijbc.py`` and ``onnx_ijbc.py``, N0 in ``ijb_evals.py``.

    Args:
        embeddings: ``[N, D]``, rows of any length.
        template: ``[N]`` integers, whose template a row is of.
        medium: ``[N]`` integers; without it each row is a medium by itself.
        detector_score: ``[N]``, finite and not negative, by which an image counts (D1); without it all count alike.
        norm_weighting: whether an image counts by its embedding's length.

    Raises DataError for lists of other lengths, embeddings that are not finite or have no direction, scores that are no
    weights, and a template that sums up to nothing.
    Time: ``N·D``. Memory: the templates in float64, and blocks.
    """
    ids, template_row = np.unique(_column("template", template, len(embeddings), "iu"), return_inverse=True)
    weight = np.ones(len(embeddings))
    if medium is not None:
        medium_row = np.unique(_column("medium", medium, len(embeddings), "iu"), return_inverse=True)[1]
        of_template = template_row.astype(np.int64) * (int(medium_row.max()) + 1) + medium_row
        _, medium_row, images_of = np.unique(of_template, return_inverse=True, return_counts=True)
        weight /= images_of[medium_row]
    if detector_score is not None:
        weight *= _detector_weights(detector_score, len(embeddings))

    summed = torch.zeros(len(ids), embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    rows, weights = (torch.from_numpy(array).to(embeddings.device) for array in (template_row, weight))
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        images = embeddings[block].double()
        unit = unit_rows(images, "embeddings", start)
        images = images if norm_weighting else unit
        summed.index_add_(0, rows[block], images * weights[block, None])
    empty = (summed == 0).all(1).nonzero().flatten()
    if len(empty):
        raise DataError(f"template {ids[int(empty[0])]}: its images sum up to nothing, so it has no direction")
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    return Templates(ids, unit_rows(summed, "templates").to(dtype))


def _detector_weights(scores: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    weights = _column("detector_score", scores, count, "fiu").astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise DataError(f"detector_score: row {bad[0]}: {weights[bad[0]]}: must be finite and at least 0")
    return weights


def _column(name: str, values: npt.ArrayLike, count: int, kinds: str) -> npt.NDArray:
    values = np.asarray(values)
    if values.shape != (count,) or values.dtype.kind not in kinds or not count:
        raise DataError(
            f"{name}: {values.dtype} of shape {values.shape}; {count} embeddings need as many "
            f"{'integers' if kinds == 'iu' else 'numbers'}, at least one"
        )
    return values
