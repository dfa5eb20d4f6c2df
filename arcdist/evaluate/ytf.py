"""YouTube Faces: are two videos of one person? LFW's ten folds over 5,000 pairs of videos.

Source: Wolf, Hassner, Maoz, Face Recognition in Unconstrained Videos with Matched Background Similarity (CVPR 2011).
How a video becomes one embedding is free; here as in insightface: its frames at length 1, their mean, at length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arcdist.errors import DataError
from arcdist.evaluate.lists import integer, read_lines
from arcdist.evaluate.templates import pool_templates
from arcdist.evaluate.verification import FOLDS, VerificationResult, verify


@dataclass(frozen=True, eq=False)
class VideoPairs:
    """P pairs of videos by name, ``person/number``, in ten folds of one length, in the order of the list."""

    first: list[str]
    second: list[str]
    same: npt.NDArray[np.bool_]


def read_splits(path: str | Path) -> VideoPairs:
    """Return the pairs of ``splits.txt``: ``1, 1, Sadie_Frost/1, Sadie_Frost/5, 1``, with or without its header.

    Raises DataError for a line that is no pair, a label that the names deny, and folds that are not ten of one length,
    one after another.
    """
    first, second, same, split = [], [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or (number == 1 and line.startswith("split")):
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 5 or fields[4] not in ("0", "1") or any("/" not in name for name in fields[2:4]):
            raise DataError(f"{path}:{number}: {line[:80]!r}; '1, 1, NAME/0, NAME/1, 1' is the form of a pair")
        is_same = fields[4] == "1"
        if is_same != (fields[2].split("/")[0] == fields[3].split("/")[0]):
            raise DataError(f"{path}:{number}: {fields[2]} and {fields[3]} are marked {fields[4]}, against their names")
        first.append(fields[2])
        second.append(fields[3])
        same.append(is_same)
        split.append(integer(fields[0], path, number, "split number"))
    if not split or split != np.repeat(np.arange(FOLDS) + 1, len(split) // FOLDS).tolist():
        raise DataError(
            f"{path}: {len(split)} pairs, not {FOLDS} splits of one length numbered from 1, one after another"
        )
    return VideoPairs(first, second, np.array(same))


def verify_videos(
    frames: Tensor,
    frame_video: Sequence[str],
    pairs: VideoPairs,
    *,
    grid: Literal["insightface", "exact"] = "exact",
) -> VerificationResult:
    """Return what pairs of videos score, as ``verify`` does for images.

    Args:
        frames: ``[F, D]``, embeddings of all frames, rows of any length.
        frame_video: ``[F]``, the video of each frame, as the list names it.

    Raises DataError for a video without frames, and for frames that are not finite or have no direction.
    """
    names, video = np.unique(np.asarray(frame_video), return_inverse=True)
    listed = np.stack([pairs.first, pairs.second], axis=1)
    missing = sorted(set(listed.ravel().tolist()) - set(names.tolist()))
    if missing:
        raise DataError(f"{len(missing)} videos of the list have no frames; the first is {missing[0]}")
    videos = pool_templates(frames, video, norm_weighting=False).embeddings
    rows = np.searchsorted(names, listed.ravel())
    return verify(videos[torch.from_numpy(rows)].cpu().numpy(), pairs.same, grid=grid)
