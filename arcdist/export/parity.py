"""Proof that an exported network gives what the one gives that it was made of."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.errors import ArcdistError
from arcdist.export.graph import Graph

_BATCHES = (1, 3)  # two sizes, so that a graph that has kept the size it was traced with is found
_MOST = 1e-3  # of an embedding's length; float32 in another order of sums differs by 1e-6 to 1e-4


class ExportError(ArcdistError):
    """An exported file that does not give what its network gives."""


@dataclass(frozen=True)
class Parity:
    """How far two networks are apart, over a few images."""

    images: int
    relative_error: float
    """The largest distance of two embeddings of an image, over the length of the first."""
    cosine: float
    """The smallest cosine between them."""

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.images} images: embeddings differ by {self.relative_error:.1e} of their length, cosine at least "
            f"{self.cosine:.7f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a JSON object holds it."""
        return asdict(self)


def compare(graph: Graph, other: Callable[[Tensor], Tensor], what: str) -> Parity:
    """Return how far another form of a graph is from it, over random images in batches of several sizes.

    Args:
        graph: on the CPU.
        other: takes what the graph takes.
        what: it is called in errors.

    Errors: ExportError where they differ by more than rounding, or the graph's embeddings are not finite.
    """
    graph.eval()
    with torch.inference_mode():
        batches = [graph.config.noise(count) for count in _BATCHES]
        ours = torch.cat([graph(batch) for batch in batches]).double()
        theirs = torch.cat([other(batch) for batch in batches]).double()
    if not ours.isfinite().all():
        raise ExportError(f"{what}: the network itself gives embeddings that are not finite")
    error = ((ours - theirs).norm(dim=1) / ours.norm(dim=1)).max().item()
    parity = Parity(len(ours), error, F.cosine_similarity(ours, theirs).min().item())
    if not error <= _MOST:
        raise ExportError(f"{what}: is not what it was made of: {parity}; nothing is written")
    return parity
