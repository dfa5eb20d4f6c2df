"""Value and gradients of every auxiliary loss against a plain transcription of its paper, in float64."""

import functools
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from support import run_ranks
from torch import Tensor
from torch.nn import functional as F

from arcdist.heads.auxiliary import AuxiliaryLoss, Rows, anchors, separation
from arcdist.heads.auxiliary.centers import CenterLoss, IntraLoss
from arcdist.heads.auxiliary.pairs import ContrastiveLoss, MarginalLoss
from arcdist.heads.auxiliary.range_loss import RangeLoss
from arcdist.heads.auxiliary.separation import HypersphericalEnergy, InterLoss
from arcdist.heads.auxiliary.triplet import TripletLoss
from arcdist.runtime import collectives
from arcdist.runtime.sharding import shard_rows

DIM, ROWS, MOST_CLASSES = 5, 12, 7
RATE = 0.4

Answer = tuple[Tensor, Tensor, Tensor, Tensor]  # value, gradients of embeddings and centers, sharded state after a step


def _problem(classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return embeddings, labels, centers and, for center loss, means."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(min(classes, 4), (ROWS,), generator=generator)
    labels[0] = classes - 1  # alone, where there are more than four classes
    directions = torch.randn(MOST_CLASSES, DIM, generator=generator, dtype=torch.float64)
    noise = torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64)
    centers = torch.randn(classes, DIM, generator=generator, dtype=torch.float64)
    means = torch.randn(classes, DIM, generator=generator, dtype=torch.float64)
    return directions[labels] + noise, labels, centers, means


def _losses(classes: int) -> dict[str, AuxiliaryLoss]:
    triplets = itertools.product(("angle", "squared_distance"), ("all", "hard", "semi_hard"))
    return {
        "center": CenterLoss(DIM, classes, RATE, dtype=torch.float64),
        "intra": IntraLoss(),
        "inter": InterLoss(classes),
        "energy of power 2": HypersphericalEnergy(classes),
        "energy of power 1": HypersphericalEnergy(classes, 1),
        "energy of power 0": HypersphericalEnergy(classes, 0),
        "contrastive": ContrastiveLoss(1.3),
        "contrastive of raw embeddings": ContrastiveLoss(2.5, normalized=False),
        "marginal": MarginalLoss(),
        "range": RangeLoss(2, 0.7, 1.5, 2.0),
        "range of 3 distances of raw embeddings": RangeLoss(3, 0.7, 1.5, 9.0, normalized=False),
        **{f"triplet by {metric}, {mining}": TripletLoss(0.35, metric, mining) for metric, mining in triplets},
    }


NAMES = list(_losses(MOST_CLASSES))
# Seven classes divide by neither 2 nor 3 ranks; of two, the third rank has none.
every_world = pytest.mark.parametrize(("classes", "world_size"), [(2, 1), (2, 3), (7, 1), (7, 2), (7, 3)])


def _rows(embeddings: Tensor, labels: Tensor, centers: Tensor, classes: int) -> Rows:
    """Return what a head gives: gathered rows, and cosines joined over ranks."""
    rank, size = collectives.rank(), collectives.world_size()
    raw, labels = collectives.gather_rows(embeddings, labels)
    unit, held = F.normalize(raw), shard_rows(classes, rank, size)
    target = torch.where((labels >= held.start) & (labels < held.stop), labels - held.start, -1)
    cosine = unit.sum(1) * 0
    if held:
        own = (unit * F.normalize(centers)[target.clamp_min(0)]).sum(1)
        cosine = torch.where(target >= 0, own, 0)
    _, cosine = collectives.logsumexp_and_sum(torch.zeros_like(cosine), cosine)
    return Rows(raw, unit, raw.norm(dim=1), labels, cosine, target, centers, held, rank, size)


def _sharded(classes: int) -> dict[str, Answer]:
    """Return every loss's answer on this rank: value summed over ranks, gradients of this rank's rows and centers."""
    embeddings, labels, centers, means = _problem(classes)
    mine = shard_rows(ROWS, collectives.rank(), collectives.world_size())
    held = shard_rows(classes, collectives.rank(), collectives.world_size())
    answers = {}
    for name, loss in _losses(classes).items():
        rows = embeddings[mine.start : mine.stop].clone().requires_grad_()
        shard = torch.nn.Parameter(centers[held.start : held.stop].clone())
        state = loss.sharded_tensors().get("means", torch.empty(0))
        state.copy_(means[held.start : held.stop] if len(state) else state)
        part = loss.part(_rows(rows, labels[mine.start : mine.stop], shard, classes))
        part.backward()
        loss.end_step()
        gradients = (torch.zeros_like(x) if x.grad is None else x.grad for x in (rows, shard))
        answers[name] = (collectives.all_reduce_sum(part.detach()), *gradients, state.clone())
    return answers


@functools.cache
def _joined(classes: int, world_size: int) -> dict[str, Answer]:
    ranks = run_ranks(_sharded, world_size, classes) if world_size > 1 else [_sharded(classes)]
    return {
        name: (ranks[0][name][0], *(torch.cat([answers[name][i] for answers in ranks]) for i in (1, 2, 3)))
        for name in NAMES
    }


def _mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64)


def _plain_contrastive(x: Tensor, labels: list[int], margin: float) -> Tensor:
    pairs = list(itertools.combinations(range(len(x)), 2))
    genuine = [(x[i] - x[j]).square().sum() / 2 for i, j in pairs if labels[i] == labels[j]]
    impostor = [(margin - (x[i] - x[j]).norm()).relu() ** 2 / 2 for i, j in pairs if labels[i] != labels[j]]
    return _mean(genuine) + _mean(impostor)


def _plain_range(x: Tensor, labels: list[int], k: int, intra: float, inter: float, margin: float) -> Tensor:
    classes = {label: x[[i for i, other in enumerate(labels) if other == label]] for label in set(labels)}
    widths = []
    for members in classes.values():
        distances = [(a - b).square().sum() for a, b in itertools.combinations(members, 2)]
        largest = sorted(distances, reverse=True)[:k]
        if largest:
            widths.append(len(largest) / torch.stack([1 / distance for distance in largest]).sum())
    means = [members.mean(0) for members in classes.values()]
    gaps = [(a - b).square().sum() for a, b in itertools.combinations(means, 2)]
    return intra * _mean(widths) + inter * (margin - min(gaps)).relu()


def _plain_triplet(x: Tensor, labels: list[int], margin: float, metric: str, mining: str) -> Tensor:
    unit = F.normalize(x)
    by_angle = metric == "angle"
    pairs = itertools.permutations(range(len(x)), 2)
    d: dict[int, dict[int, Tensor]] = {a: {} for a in range(len(x))}
    for a, b in pairs:
        d[a][b] = (unit[a] @ unit[b]).arccos() if by_angle else (unit[a] - unit[b]).square().sum()
    triplets = []
    for a in range(len(x)):
        genuine = [p for p in range(len(x)) if p != a and labels[p] == labels[a]]
        impostor = [n for n in range(len(x)) if labels[n] != labels[a]]
        if mining == "all":
            triplets += [(a, p, n) for p in genuine for n in impostor]
        elif mining == "hard" and genuine and impostor:
            triplets.append((a, max(genuine, key=d[a].__getitem__), min(impostor, key=d[a].__getitem__)))
        elif mining == "semi_hard":
            for p in genuine:
                farther = [n for n in impostor if d[a][n] > d[a][p]]
                triplets += [(a, p, min(farther, key=d[a].__getitem__))] if farther else []
    violations = [d[a][p] + margin - d[a][n] for a, p, n in triplets]
    return _mean([violation for violation in violations if violation > 0])


def _plain_separation(centers: Tensor, labels: list[int], pair: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    unit = F.normalize(centers)
    terms = [pair(unit[y], unit[j]) for y in labels for j in range(len(unit)) if j != y]
    return torch.stack(terms).sum() / (len(labels) * (len(unit) - 1))


def _plain_marginal(x: Tensor, labels: list[int]) -> Tensor:
    unit = F.normalize(x)
    terms = []
    for i, j in itertools.permutations(range(len(x)), 2):
        sign = 1 if labels[i] == labels[j] else -1
        terms.append((0.3 - sign * (1.2 - (unit[i] - unit[j]).square().sum())).relu())
    return _mean(terms)


def _plain(name: str, x: Tensor, y: list[int], centers: Tensor, means: Tensor) -> Tensor:
    unit, unit_centers = F.normalize(x), F.normalize(centers)
    if name.startswith("triplet"):
        metric, mining = name.removeprefix("triplet by ").split(", ")
        return _plain_triplet(x, y, 0.35, metric, mining)
    plain: dict[str, Callable[[], Tensor]] = {
        "center": lambda: (x - means[y]).square().sum() / 2 / len(x),
        "intra": lambda: (unit * unit_centers[y]).sum(1).arccos().sum() / math.pi / len(x),
        "inter": lambda: _plain_separation(centers, y, lambda a, b: -(a @ b).arccos() / math.pi),
        "energy of power 2": lambda: _plain_separation(centers, y, lambda a, b: (a - b).norm() ** -2),
        "energy of power 1": lambda: _plain_separation(centers, y, lambda a, b: (a - b).norm() ** -1),
        "energy of power 0": lambda: _plain_separation(centers, y, lambda a, b: (1 / (a - b).norm()).log()),
        "contrastive": lambda: _plain_contrastive(unit, y, 1.3),
        "contrastive of raw embeddings": lambda: _plain_contrastive(x, y, 2.5),
        "marginal": lambda: _plain_marginal(x, y),
        "range": lambda: _plain_range(unit, y, 2, 0.7, 1.5, 2.0),
        "range of 3 distances of raw embeddings": lambda: _plain_range(x, y, 3, 0.7, 1.5, 9.0),
    }
    return plain[name]()


@pytest.mark.parametrize("name", NAMES)
@every_world
def test_value_and_gradients_are_the_papers_on_any_number_of_ranks(name: str, classes: int, world_size: int) -> None:
    embeddings, labels, centers, means = _problem(classes)
    embeddings.requires_grad_()
    centers.requires_grad_()
    expected = _plain(name, embeddings, labels.tolist(), centers, means)
    assert expected.abs() > 1e-3, "a loss of 0 would prove nothing"
    gradients = torch.autograd.grad(expected, (embeddings, centers), allow_unused=True)
    value, of_embeddings, of_centers, _ = _joined(classes, world_size)[name]
    torch.testing.assert_close(value, expected.detach(), rtol=1e-11, atol=1e-13)
    for gradient, plain in zip((of_embeddings, of_centers), gradients):
        plain = torch.zeros_like(gradient) if plain is None else plain
        torch.testing.assert_close(gradient, plain, rtol=1e-9, atol=1e-12)


def test_blocks_of_anchors_and_of_centers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _joined(MOST_CLASSES, 1)
    monkeypatch.setattr(anchors, "_PAIRS_AT_ONCE", 5 * ROWS)
    monkeypatch.setattr(separation, "_BLOCK", 3)
    for name, answer in _sharded(MOST_CLASSES).items():
        torch.testing.assert_close(answer, whole[name], rtol=1e-11, atol=1e-13)


@every_world
def test_the_means_of_center_loss_move_by_the_papers_rule(classes: int, world_size: int) -> None:
    embeddings, labels, _, means = _problem(classes)
    for j in range(classes):
        of_class = embeddings[labels == j]
        means[j] -= RATE * (means[j] - of_class).sum(0) / (1 + len(of_class))
    torch.testing.assert_close(_joined(classes, world_size)["center"][3], means, rtol=1e-12, atol=1e-13)


def test_the_means_move_once_a_step_whatever_its_rounds() -> None:
    embeddings, labels, centers, _ = _problem(MOST_CLASSES)
    whole, rounds = (CenterLoss(DIM, MOST_CLASSES, RATE, dtype=torch.float64) for _ in range(2))
    whole.part(_rows(embeddings, labels, centers, MOST_CLASSES))
    for part in (slice(0, 5), slice(5, ROWS)):
        rounds.part(_rows(embeddings[part], labels[part], centers, MOST_CLASSES))
    for loss in (whole, rounds):
        loss.end_step()
    assert rounds.means.abs().max() > 0
    torch.testing.assert_close(rounds.means, whole.means)
    before = rounds.means.clone()
    rounds.eval()
    rounds.part(_rows(embeddings, labels, centers, MOST_CLASSES))
    rounds.end_step()
    assert torch.equal(rounds.means, before)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_gradcheck(name: str) -> None:
    loss = _losses(MOST_CLASSES)[name].eval()
    embeddings, labels, centers, _ = _problem(MOST_CLASSES)
    inputs = (embeddings.requires_grad_(), centers.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, c: loss.part(_rows(x, labels, c, MOST_CLASSES)), inputs)


def _degenerate() -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(6, DIM, generator=generator)
    return {
        "one identity": (some, torch.zeros(6, dtype=torch.int64)),
        "no genuine pair": (some, torch.arange(6)),
        "one row": (some[:1], torch.tensor([3])),
        "identical rows": (some[:1].repeat(6, 1), torch.tensor([0, 0, 1, 1, 2, 2])),
        "opposite rows": (some[:1] * torch.tensor([1.0, -1, 1, -1])[:, None], torch.tensor([0, 0, 1, 1])),
        "zero embeddings": (some * torch.tensor([0.0, 0, 1, 1, 0, 1])[:, None], torch.tensor([0, 0, 1, 1, 2, 2])),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", list(_degenerate()))
@pytest.mark.parametrize("centers", ["apart", "identical", "equal to an embedding", "zero"])
def test_no_batch_gives_a_value_or_gradient_that_is_not_finite(name: str, batch: str, centers: str) -> None:
    embeddings, labels = (value.clone() for value in _degenerate()[batch])
    held = torch.randn(MOST_CLASSES, DIM, generator=torch.Generator().manual_seed(1))
    held = {"apart": held, "identical": torch.ones_like(held), "zero": 0 * held}.get(
        centers, embeddings[0].repeat(MOST_CLASSES, 1)
    )
    held = torch.nn.Parameter(held.clone())
    loss = _losses(MOST_CLASSES)[name].float()
    value = loss.part(_rows(embeddings.requires_grad_(), labels, held, MOST_CLASSES))
    value.backward()
    loss.end_step()
    assert value.isfinite()
    for tensor in (embeddings.grad, held.grad, *loss.sharded_tensors().values()):
        assert tensor is None or tensor.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("triplet", "contrastive"))])
def test_embeddings_that_are_no_numbers_give_a_loss_that_is_none_and_not_an_error(name: str) -> None:
    embeddings, labels, centers, _ = _problem(MOST_CLASSES)
    value = _losses(MOST_CLASSES)[name].part(_rows(embeddings * math.nan, labels, centers, MOST_CLASSES))
    assert not value.isfinite()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("triplet", "contrastive"))])
@pytest.mark.parametrize("batch", ["one row", "no genuine pair", "one identity"])
def test_a_batch_without_the_pairs_of_a_loss_adds_nothing(name: str, batch: str) -> None:
    embeddings, labels = _degenerate()[batch]
    value = _losses(MOST_CLASSES)[name].part(_rows(embeddings, labels, torch.ones(MOST_CLASSES, DIM), MOST_CLASSES))
    # Of contrastive loss one half is left: genuine pairs alone, or impostor pairs alone.
    assert (value > 0) == (name.startswith("contrastive") and batch != "one row")


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
def test_triplets_that_keep_the_margin_cost_nothing(mining: str) -> None:
    embeddings = torch.eye(DIM)[:2].repeat_interleave(2, 0).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1])
    loss = TripletLoss(0.35, "angle", mining).part(_rows(embeddings, labels, torch.ones(2, DIM), 2))
    loss.backward()
    assert loss == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_half_precision_centers_are_scored_in_float32() -> None:
    _, labels, centers, _ = _problem(MOST_CLASSES)
    rows = torch.ones(ROWS, DIM)
    narrow = centers.bfloat16().requires_grad_()
    wide = narrow.detach().float().requires_grad_()
    of_narrow, of_wide = (
        HypersphericalEnergy(MOST_CLASSES).part(_rows(rows, labels, held, MOST_CLASSES)) for held in (narrow, wide)
    )
    assert torch.equal(of_narrow, of_wide)
    of_narrow.backward()
    assert narrow.grad is not None
    assert narrow.grad.dtype == torch.bfloat16
