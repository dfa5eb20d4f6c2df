"""The losses as their papers write them: all logits at once, plain autograd, the papers' numbers.

Each takes embeddings ``[B, D]``, centers ``[C, D]``, labels ``[B]`` and the state that a stateful loss has reached, and
returns the rows' losses ``[B]``. Where a formula weighs by a constant, it is detached here too. The rows of a test are
near their centers: no widened angle passes π, where the papers leave open what a margin is.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.margins import MarginConfig

State = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor, State], Tensor]


@cache
def margin_config(name: str) -> MarginConfig:
    """Return what ``margin=name`` says."""
    from arcdist.cli.compose import compose_config  # here: ranks that import this file need no Hydra

    return compose_config([f"margin={name}"]).margin


def batch(rows: int = 30, classes: int = 12, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings near their centers, centers and labels, float64."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    length = 4 + 8 * torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    return length * (F.normalize(centers)[labels] + 0.3 * noise), centers, labels


def cosines(embeddings: Tensor, centers: Tensor) -> Tensor:
    """Return every cosine, ``[B, C]``."""
    return embeddings / embeddings.norm(dim=1, keepdim=True) @ (centers / centers.norm(dim=1, keepdim=True)).T


def _own(cosine: Tensor, labels: Tensor) -> Tensor:
    return cosine.gather(1, labels[:, None])


def _cross_entropy(target: Tensor, negatives: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(negatives.scatter(1, labels[:, None], target), labels, reduction="none")


def _softmax(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:1801.07698, equation 1; the centers' last column is the bias."""
    return F.cross_entropy(embeddings @ centers[:, :-1].T + centers[:, -1], labels, reduction="none")


def _combined(m1: float, m2: float, m3: float, scale: float = 64.0) -> Loss:
    """arXiv:1801.07698, equation 4."""

    def loss(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
        cosine = cosines(embeddings, centers)
        target = (m1 * _own(cosine, labels).acos() + m2).cos() - m3
        return _cross_entropy(scale * target, scale * cosine, labels)

    return loss


def _a_softmax(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:1704.08063: ψ of m = 4, and the authors' annealing."""
    norm, cosine = embeddings.norm(dim=1, keepdim=True), cosines(embeddings, centers)
    theta = _own(cosine, labels).acos()
    k = (4 * theta / math.pi).detach().floor()
    psi = (-1) ** k * (4 * theta).cos() - 2 * k
    blend = max(5.0, 1000 / (1 + 0.12 * int(state["step"])))
    target = (blend * theta.cos() + psi) / (1 + blend)
    return _cross_entropy(norm * target, norm * cosine, labels)


def _adaface(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:2204.00964; the 1e-3 is the authors' code's."""
    cosine, norm = cosines(embeddings, centers), embeddings.detach().norm(dim=1, keepdim=True)
    quality = ((norm - state["mean"]) / ((state["std"] + 1e-3) / 0.333)).clamp(-1, 1)
    g_angle, g_add = -0.4 * quality, 0.4 * quality + 0.4
    return _cross_entropy(64 * ((_own(cosine, labels).acos() + g_angle).cos() - g_add), 64 * cosine, labels)


def _magface(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:2103.06627."""
    cosine, a = cosines(embeddings, centers), embeddings.norm(dim=1, keepdim=True).clamp(10, 110)
    margin = (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45
    loss = _cross_entropy(64 * (_own(cosine, labels).acos() + margin).cos(), 64 * cosine, labels)
    return loss + 35 * (1 / 110**2 * a + 1 / a).squeeze(1)


def _mv_softmax(arc: bool) -> Loss:
    """arXiv:1912.00833, the adaptive form, t = 0.2."""

    def loss(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
        cosine = cosines(embeddings, centers)
        own = _own(cosine, labels)
        f = (own.acos() + 0.5).cos() if arc else own - 0.35
        indicator = (f - cosine < 0).double()
        h = (32 * 0.2 * (cosine + 1) * indicator).exp()
        every = (h * (32 * cosine).exp()).scatter(1, labels[:, None], (32 * f).exp())
        return -((32 * f).exp().squeeze(1) / every.sum(1)).log()

    return loss


def _curricularface(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:2004.00288."""
    cosine = cosines(embeddings, centers)
    target = (_own(cosine, labels).acos() + 0.5).cos()
    negatives = torch.where(target >= cosine, cosine, cosine * (state["t"] + cosine))
    return _cross_entropy(64 * target, 64 * negatives, labels)


def _circleloss(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:2002.10857, equations 4 to 6 with one positive similarity, the target's; the weights are constants."""
    cosine, m, gamma = cosines(embeddings, centers), 0.25, 256
    s_p = _own(cosine, labels)
    alpha_p, alpha_n = (1 + m - s_p.detach()).clamp_min(0), (cosine.detach() + m).clamp_min(0)
    negatives = (gamma * alpha_n * (cosine - m)).scatter(1, labels[:, None], -torch.inf)
    return (1 + (negatives - gamma * alpha_p * (s_p - (1 - m))).exp().sum(1)).log()


def _adacos(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """arXiv:1905.00292."""
    return F.cross_entropy(state["current"] * cosines(embeddings, centers), labels, reduction="none")


def _elasticface(arc: bool, std: float, plus: bool) -> Loss:
    """arXiv:2109.09416, equations 6 and 7; which normal numbers these are is arcdist's own affair."""

    def loss(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
        cosine = cosines(embeddings, centers)
        own = _own(cosine, labels).squeeze(1)
        drawn = np.random.default_rng((0, 0x656C6173, int(state["step"]))).standard_normal(len(own))
        margins = torch.tensor((0.5 if arc else 0.35) + std * drawn)
        if plus:
            by_cosine = sorted(range(len(own)), key=own.tolist().__getitem__)
            margins[by_cosine] = margins.sort(descending=True).values
        target = (own.acos() + margins).cos() if arc else own - margins
        return _cross_entropy(64 * target[:, None], 64 * cosine, labels)

    return loss


def _uniface(embeddings: Tensor, centers: Tensor, labels: Tensor, state: State) -> Tensor:
    """UniFace, ICCV 2023, with the authors' initial bias."""
    cosine, bias = cosines(embeddings, centers), math.log(10 * len(centers))
    positive = (1 + (-(64 * (_own(cosine, labels) - 0.4) - bias)).exp()).log().squeeze(1)
    negative = (1 + (64 * cosine - bias).exp()).log().scatter(1, labels[:, None], 0)
    return positive + negative.sum(1)


PUBLISHED: dict[str, Loss] = {
    "softmax": _softmax,
    "norm_softmax": _combined(1, 0, 0),
    "a_softmax": _a_softmax,
    "sphereface": _combined(1.35, 0, 0),
    "cosface": _combined(1, 0, 0.35),
    "arcface": _combined(1, 0.5, 0),
    "arcface_small": _combined(1, 0.3, 0, scale=24),
    "cm1": _combined(1, 0.3, 0.2),
    "cm2": _combined(0.9, 0.4, 0.15),
    "adaface": _adaface,
    "magface": _magface,
    "mv_softmax": _mv_softmax(arc=False),
    "mv_arcface": _mv_softmax(arc=True),
    "curricularface": _curricularface,
    "circleloss": _circleloss,
    "adacos": _adacos,
    "adacos_fixed": _adacos,
    "elasticface_arc": _elasticface(arc=True, std=0.05, plus=False),
    "elasticface_cos": _elasticface(arc=False, std=0.05, plus=False),
    "elasticface_arc_plus": _elasticface(arc=True, std=0.0175, plus=True),
    "elasticface_cos_plus": _elasticface(arc=False, std=0.025, plus=True),
    "uniface": _uniface,
}
