"""How far each method's loss and gradients are from those in float64, where training is nearly done."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.bench.baselines import Materialized
from arcdist.bench.cases import METHODS, Case
from arcdist.runtime.float32_products import choose_library

_LARGE_LR = 2.0**24  # a step so long that what the centers were before does not count
_LENGTH = 20.0  # of the embeddings; nothing depends on it but their gradient's size


def target_cosine(m2: float) -> float:
    """Return the cosine of each embedding to its own center: 0.7 for ArcFace, for others what gives its logits."""
    return math.cos(math.acos(0.7) + 0.5 - m2)


class GradientErrors:
    """Batches near their classes' centers, one for each margin, and their loss and gradients in float64.

    Args:
        case: the sizes.
        threads: of the process.
    """

    def __init__(self, case: Case, threads: int) -> None:
        torch.set_num_threads(threads)
        self._case = replace(case, lr=_LARGE_LR, weight_decay=0.0)
        draws = torch.Generator().manual_seed(1)
        self._centers = 0.01 * torch.randn(case.num_classes, case.embedding_dim, generator=draws)
        self._labels = torch.randint(case.num_classes, (case.batch_size,), generator=draws)
        self._own = F.normalize(self._centers[self._labels])
        other = torch.randn(self._own.shape, generator=draws)
        self._other = F.normalize(other - (other * self._own).sum(1, keepdim=True) * self._own)
        self._expected: dict[float, list[Tensor]] = {}

    def measure(self, name: str) -> dict[str, float]:
        """Return the relative errors of a method's loss, its embeddings' gradient and its centers'."""
        method = METHODS[name]
        if method.m2 not in self._expected:
            self._expected[method.m2] = self._in_float64(method.m2)
        torch.manual_seed(0)
        if self._case.device == "cpu":
            choose_library(method.library)
        subject = method.build(self._case)
        with torch.no_grad():
            subject.centers.copy_(self._centers)
        before = subject.centers.detach().double().cpu()
        embeddings = self._embeddings(method.m2).to(self._case.device).requires_grad_()
        loss = subject.head(embeddings, self._labels.to(self._case.device))
        loss.backward()
        subject.update()
        assert embeddings.grad is not None
        # Of a method that updates in the backward pass only the step shows the gradient: so for all of them.
        gradient = (before - subject.centers.detach().double().cpu()) / self._case.lr
        found = [loss.detach().double().cpu(), embeddings.grad.double().cpu(), gradient]
        errors = [
            float((value - expected).norm() / expected.norm())
            for value, expected in zip(found, self._expected[method.m2], strict=True)
        ]
        return dict(zip(("loss", "embeddings", "centers"), errors, strict=True))

    def _embeddings(self, m2: float) -> Tensor:
        cosine = target_cosine(m2)
        return _LENGTH * (cosine * self._own + math.sqrt(1 - cosine**2) * self._other)

    def _in_float64(self, m2: float) -> list[Tensor]:
        head = Materialized(self._case.embedding_dim, self._case.num_classes, m2=m2, dtype=torch.float64)
        with torch.no_grad():
            head.centers.copy_(self._centers)
        embeddings = self._embeddings(m2).double().requires_grad_()
        loss = head(embeddings, self._labels)
        return [loss.detach(), *torch.autograd.grad(loss, (embeddings, head.centers))]
