"""Which classes take part in a step."""

import numpy as np
import torch
from torch import Tensor

from arcdist.runtime import seeds


def drawn_classes(labels: Tensor, classes: range, sample_rate: float, seed: int, step: int) -> Tensor:
    """Return which of ``classes`` take part in the softmax of a step, bool ``[len(classes)]``.

    Every class of the batch does; any other is drawn with probability ``sample_rate`` by its own hash of
    (seed, step, class), so that the draw does not depend on which rank holds the class (arXiv:2203.15565 draws a
    fixed count a rank instead).

    Args:
        labels: ``[B]`` int64, of the global batch, global class ids.
        classes: the global ids of this rank's centers.
    """
    index = np.arange(classes.start, classes.stop, dtype=np.int64)
    drawn = torch.from_numpy(seeds.uniform(seed, f"negatives of step {step}", index) < sample_rate).to(labels.device)
    inside = (labels >= classes.start) & (labels < classes.stop)
    drawn[labels[inside] - classes.start] = True
    return drawn
