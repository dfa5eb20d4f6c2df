"""Every margin that can be chosen: its loss against the published equation, its gradients, its limits."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from published_losses import PUBLISHED, batch, cosines, margin_config
from torch import Tensor
from torch.nn import functional as F

from arcdist.cli.compose import groups
from arcdist.errors import ConfigError
from arcdist.margins import MARGINS, CircleLoss, Margin
from arcdist.ops.margin_logsumexp import Formula, margin_logsumexp

every_margin = pytest.mark.parametrize("name", PUBLISHED)
CLASSES = 12


def build(name: str, /, **values: Any) -> Margin:
    """Return the margin that ``margin=name`` gives."""
    return replace(margin_config(name), **values).build(CLASSES, seed=0)


def losses(margin: Margin, embeddings: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Return the rows' losses as a head computes them."""
    norm = embeddings.norm(dim=1)
    scored = embeddings / norm[:, None] if margin.unit_embeddings else embeddings
    if margin.bias:
        scored = torch.cat([scored, torch.ones_like(scored[:, :1])], 1)
    own = cosines(embeddings, centers).gather(1, labels[:, None]).squeeze(1) if margin.needs_target_first else norm
    formula = Formula(margin.scale, margin.negative(own.detach()), margin.unit_centers)
    negatives, cosine = margin_logsumexp(scored, centers, labels, formula)
    return margin.losses(cosine, norm, negatives)


def test_every_margin_that_can_be_chosen_is_compared_with_its_paper() -> None:
    assert set(PUBLISHED) == set(groups()["margin"])
    assert {type(margin_config(name)) for name in PUBLISHED} == set(MARGINS.values())


@every_margin
@pytest.mark.parametrize("steps", [0, 2])
def test_loss_and_gradients_are_those_of_the_published_equation(name: str, steps: int) -> None:
    embeddings, centers, labels = batch(classes=CLASSES)
    margin = build(name)
    if margin.bias:
        centers = torch.cat([centers, torch.linspace(-1, 1, CLASSES, dtype=torch.float64)[:, None]], 1)
    for _ in range(steps):
        margin.observe(cosines(embeddings, centers[:, :8]).amax(1), embeddings.norm(dim=1), embeddings[:, 0])
        margin.end_step()
    inputs = embeddings.requires_grad_(), centers.requires_grad_()
    ours = losses(margin, embeddings, centers, labels)
    published = PUBLISHED[name](embeddings, centers, labels, dict(margin.named_buffers()))
    torch.testing.assert_close(ours, published, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(0.5, 1.5, len(labels), dtype=torch.float64)
    for mine, plain in zip(
        torch.autograd.grad((ours * weights).sum(), inputs), torch.autograd.grad((published * weights).sum(), inputs)
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9)


def test_a_filtered_loss_is_the_softmax_over_the_negatives_that_stay() -> None:
    embeddings, centers, labels = batch(classes=CLASSES)
    inputs = embeddings.requires_grad_(), centers.requires_grad_()
    ours = losses(build("cosface", interclass_filter=0.2), embeddings, centers, labels)
    cosine = cosines(embeddings, centers)
    own = torch.arange(CLASSES) == labels[:, None]
    filtered = (cosine > 0.2) & ~own
    assert filtered.any()
    plain = F.cross_entropy(
        (64 * (cosine - 0.35 * own.double())).masked_fill(filtered, -torch.inf), labels, reduction="none"
    )
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    for mine, dense in zip(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(plain.sum(), inputs)):
        torch.testing.assert_close(mine, dense, rtol=1e-9, atol=1e-9)


@every_margin
def test_gradients_of_the_losses_agree_with_finite_differences(name: str) -> None:
    margin = build(name, gradient="exact") if name == "circleloss" else build(name)
    generator = torch.Generator().manual_seed(1)
    cosine = 1.8 * torch.rand(9, generator=generator, dtype=torch.float64) - 0.9
    norm = 11 + 80 * torch.rand(9, generator=generator, dtype=torch.float64)
    if not margin.unit_embeddings:
        cosine = cosine * norm
    negatives = margin.scale * torch.rand(9, generator=generator, dtype=torch.float64) / 16
    norm.requires_grad_(name != "adaface")  # whose quality is a constant
    assert torch.autograd.gradcheck(margin.losses, (cosine.requires_grad_(), norm, negatives.requires_grad_()))


@every_margin
@pytest.mark.parametrize("interclass_filter", [1.0, 0.6])
def test_the_slope_of_a_negative_is_the_derivative_of_its_logit(name: str, interclass_filter: float) -> None:
    if name == "circleloss":
        margin: Margin = CircleLoss(gradient="exact")
    elif interclass_filter < 1 and not build(name).unit_embeddings:
        return
    else:
        margin = build(name, interclass_filter=interclass_filter)
    own = torch.tensor([-0.31, 0.12, 0.77], dtype=torch.float64)
    negative = margin.negative(own)
    if negative is None:
        return
    block = torch.linspace(-0.999, 0.997, 101, dtype=torch.float64).repeat(3, 1)
    numeric = (negative.logit(block + 1e-6) - negative.logit(block - 1e-6)) / 2e-6
    torch.testing.assert_close(negative.slope(block), numeric.nan_to_num(0), rtol=1e-6, atol=1e-6)


@every_margin
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_limits_give_finite_losses_and_gradients(name: str, dtype: torch.dtype) -> None:
    margin = build(name)
    if "scale" in vars(margin):
        margin.scale = 128.0
    cosine = torch.tensor([-1, -1, 1, 1, 1.0000001, 0, -1.0000001], dtype=dtype)
    norm = torch.tensor([0, 1e-30, 1e4, 20, 0, 0, 10], dtype=dtype)
    if not margin.unit_embeddings:
        cosine = cosine * norm
    negatives = torch.tensor([4, -torch.inf, 4, -100, 0, 4, -torch.inf], dtype=dtype)
    inputs = cosine.requires_grad_(), norm.requires_grad_(), negatives.requires_grad_()
    loss = margin.losses(*inputs)
    assert loss.dtype == dtype
    assert loss.isfinite().all()
    gradients = torch.autograd.grad(loss.sum(), inputs, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    negative = margin.negative(cosine.detach())
    if negative is not None:
        block = torch.tensor([-1.0000001, -1, -0.3, 0, 0.3, 1, 1.0000001], dtype=dtype).repeat(7, 1)
        assert negative.logit(block).dtype == negative.slope(block).dtype == dtype
        assert negative.logit(block).isfinite().all()
        assert negative.slope(block).isfinite().all()


@every_margin
def test_a_margin_travels_between_processes_with_its_state(name: str) -> None:
    margin = build(name)
    margin.observe(torch.tensor([0.3, 0.5]), torch.tensor([15.0, 25.0]), torch.tensor([3.0, 4.0]))
    margin.end_step()
    twin = pickle.loads(pickle.dumps(margin))
    assert dict(twin.named_buffers()) == dict(margin.named_buffers())


@every_margin
def test_a_saved_state_is_the_state(name: str) -> None:
    margin, fresh = build(name), build(name)
    margin.observe(torch.tensor([0.3, 0.5]), torch.tensor([15.0, 25.0]), torch.tensor([3.0, 4.0]))
    margin.end_step()
    fresh.load_state_dict(copy.deepcopy(margin.state_dict()))
    cosine, norm, negatives = torch.tensor([0.1, 0.6]), torch.tensor([9.0, 30.0]), torch.tensor([2.0, 9.0])
    assert torch.equal(fresh.losses(cosine, norm, negatives), margin.losses(cosine, norm, negatives))


@pytest.mark.parametrize(
    "name", sorted(set(PUBLISHED) - {"softmax", "adacos", "adacos_fixed", "circleloss", "uniface", "magface"})
)
def test_a_margin_of_strength_zero_is_none(name: str) -> None:
    margin = build(name)
    margin.strength = 0.0
    cosine, norm = torch.tensor([-0.2, 0.5, 0.9]), torch.tensor([5.0, 20.0, 30.0])
    if not margin.unit_embeddings:
        cosine = cosine * norm
    torch.testing.assert_close(margin.target_logit(cosine, norm), margin.scale * cosine)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("adaface", "scale", 0),
        ("adaface", "momentum", 1),
        ("magface", "norm_max", 5),
        ("magface", "m_max", 0.1),
        ("mv_softmax", "kind", "x"),
        ("mv_arcface", "m", 28.6),
        ("curricularface", "m", -1),
        ("circleloss", "gradient", "x"),
        ("elasticface_cos", "std", -1),
        ("uniface", "negative_weight", 0),
        ("a_softmax", "blend_min", 2000),
        ("a_softmax", "interclass_filter", 0.5),
        ("arcface", "interclass_filter", 0),
        ("arcface", "warmup", 2),
        ("arcface", "name", "adaface"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_its_key(name: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"margin.{key}: .*: must"):
        build(name, **{key: value})


@pytest.mark.parametrize("name", ["adacos", "uniface"])
def test_a_margin_that_follows_from_the_number_of_classes_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match="number of classes"):
        margin_config(name).build()
