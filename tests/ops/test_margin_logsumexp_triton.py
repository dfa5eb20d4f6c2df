"""The Triton kernels mean what the reference says: in Triton's interpreter on any machine, on a GPU where there is one.

Triton decides when it is imported whether it interprets, so one process of its own runs all checks in the interpreter
and tells what came of each; the tests below read that.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is not installed: pip install arcdist[triton]")

from arcdist.ops.margin_logsumexp import CentersGradient, Formula, Tuning, margin_logsumexp
from arcdist.ops.margin_logsumexp import triton as kernels
from arcdist.ops.margin_logsumexp.reference import margin_logsumexp as reference
from arcdist.ops.margin_logsumexp.triton_scoring import can_score

WANTS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
SMALL = kernels.Tile(rows=16, classes=16, chunk=32)


def _problem(rows: int, classes: int, dims: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings, raw centers and targets, of which some are on another rank."""
    generator = torch.Generator().manual_seed(rows * 1000 + classes)
    embedding = F.normalize(torch.randn(rows, dims, generator=generator))
    centers = torch.randn(classes, dims, generator=generator) * (0.2 + torch.rand(classes, 1, generator=generator))
    target = torch.randint(-1, classes, (rows,), generator=generator)
    return embedding.to(dtype), centers.to(dtype), target


def _ours(
    problem: tuple[Tensor, Tensor, Tensor],
    scale: float = 30.0,
    products: kernels.Products = "fp32",
    normalized: bool = True,
    tile: kernels.Tile | None = SMALL,
    block: int = 19,
) -> list[Tensor]:
    """Return the log-sum-exp, the cosine, and the gradients of embeddings and centers."""
    embedding, centers, target = problem
    inverse_norm = 1 / centers.float().norm(dim=1).clamp_min(1e-12) if normalized else None
    known = embedding, centers, inverse_norm, target, scale
    lse, cosine = kernels.forward(*known, products, tile)
    given = lse, *_upstream(lse)
    blocks = [
        kernels.centers_gradient(*known, *given, products, start, min(start + block, len(centers)), tile)
        for start in range(0, len(centers), block)
    ]
    of_centers = torch.cat(blocks) if blocks else torch.zeros_like(centers, dtype=torch.float32)
    return [lse, cosine, kernels.embedding_gradient(*known, *given, products, tile), of_centers]


def _plain(
    problem: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype, scale: float = 30.0, normalized: bool = True
) -> list[Tensor]:
    """Return the same by the reference in ``dtype``."""
    embedding, centers = (tensor.to(dtype).requires_grad_() for tensor in problem[:2])
    lse, cosine = reference(embedding, centers, problem[2], Formula(scale=scale, normalized=normalized))
    gradients = torch.autograd.grad((lse, cosine), (embedding, centers), _upstream(lse))
    return [tensor.detach() for tensor in (lse, cosine, *gradients)]


def _upstream(lse: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a loss might hand back: gradients of the log-sum-exp (0 over no negatives) and of the cosine."""
    weight = torch.linspace(0.5, 2, len(lse), device=lse.device).to(lse.dtype)
    return torch.where(lse.isfinite(), weight, 0), -3 * weight.flip(0)


def _assert_errs_no_more_than(plain: list[Tensor], ours: list[Tensor], exact: list[Tensor]) -> None:
    # Over many problems the errors are alike; of one problem's draw of roundings, one may be 1.6 times the other.
    for name, mine, theirs, truth in zip(("lse", "cosine", "embedding", "centers"), ours, plain, exact):
        error, allowed = (mine - truth).norm(), 2 * (theirs - truth).norm() + 2e-7 * truth.norm()
        assert error <= allowed, f"{name}: off by {error:.2e}, allowed {allowed:.2e}"


def _assert_finite(tensors: list[Tensor]) -> None:
    assert all(tensor.isfinite().all() for tensor in tensors)


def sizes_that_divide_nothing() -> None:
    problem = _problem(37, 45, 48)
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def rows_parted_and_classes_parted() -> None:
    problem = _problem(40, 70, 32)
    kernels._multiprocessors = lambda tensor: 6
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def forward_in_several_launches() -> None:
    problem = _problem(20, 70, 32)
    kernels._PARTIALS = 40
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def fewer_classes_than_a_tile() -> None:
    problem = _problem(5, 3, 16)
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def centers_as_they_are() -> None:
    problem = _problem(17, 33, 32)
    ours = _ours(problem, scale=1.0, normalized=False)
    plain, exact = (_plain(problem, dtype, 1.0, normalized=False) for dtype in (torch.float32, torch.float64))
    _assert_errs_no_more_than(plain, ours, exact)


def bfloat16_embeddings_centers_and_products() -> None:
    problem = _problem(21, 37, 48, torch.bfloat16)
    ours = _ours(problem, products="bf16")
    _assert_errs_no_more_than(_plain(problem, torch.bfloat16), ours, _plain(problem, torch.float64))


def float16_embeddings() -> None:
    embedding, centers, target = _problem(21, 37, 48)
    problem = embedding.half(), centers, target
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def default_tiles_at_512_dims() -> None:
    problem = _problem(33, 70, 512)
    ours = _ours(problem, tile=None, block=70)
    _assert_errs_no_more_than(_plain(problem, torch.float32), ours, _plain(problem, torch.float64))


def default_tiles_at_1024_dims() -> None:
    problem = _problem(17, 20, 1024)
    ours = _ours(problem, tile=None, block=20)
    _assert_errs_no_more_than(_plain(problem, torch.float32), ours, _plain(problem, torch.float64))


def all_targets_elsewhere() -> None:
    embedding, centers, _ = _problem(18, 20, 32)
    problem = embedding, centers, torch.full((18,), -1)
    ours = _ours(problem)
    assert not ours[1].any()
    _assert_errs_no_more_than(_plain(problem, torch.float32), ours, _plain(problem, torch.float64))


def all_targets_the_same() -> None:
    embedding, centers, _ = _problem(35, 20, 32)
    problem = embedding, centers, torch.full((35,), 17)
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def identical_centers() -> None:
    embedding, centers, target = _problem(18, 20, 32)
    problem = embedding, centers[:1].repeat(20, 1), target
    _assert_errs_no_more_than(_plain(problem, torch.float32), _ours(problem), _plain(problem, torch.float64))


def cosines_of_one_at_scale_128() -> None:
    eye = torch.eye(16)
    for products in ("fp32", "bf16"):
        ours = _ours((eye, torch.cat([eye, -3 * eye]), torch.arange(16)), 128.0, products)
        _assert_finite(ours)
        torch.testing.assert_close(ours[1], torch.ones(16))
        ours = _ours((eye, torch.cat([eye, -3 * eye]), torch.arange(16, 32)), 128.0, products)
        torch.testing.assert_close(ours[0], torch.full((16,), 128.0))


def a_log_sum_exp_below_the_range_of_exp() -> None:
    """A tile's classes beyond the last have the logit 0, whose share exp(0 − lse) is infinite here."""
    embedding = torch.eye(16)[:1].repeat(5, 1)
    problem = embedding, -embedding[:3], torch.tensor([0, 1, 2, -1, -1])
    ours = _ours(problem, 128.0)
    _assert_finite(ours)
    torch.testing.assert_close(ours[0], torch.tensor([-128.0, -128, -128, -128, -128]) + ours[0].add(128))
    _assert_errs_no_more_than(_plain(problem, torch.float32, 128.0), ours, _plain(problem, torch.float64, 128.0))


def zero_embeddings_and_zero_centers() -> None:
    _, centers, target = _problem(6, 20, 32)
    centers[3] = 0
    _assert_finite(_ours((torch.zeros(6, 32), centers, target), 128.0))


def only_the_own_class() -> None:
    embedding, centers, _ = _problem(5, 1, 32)
    lse, cosine, *gradients = _ours((embedding, centers, torch.zeros(5, dtype=torch.int64)))
    assert torch.equal(lse, torch.full((5,), -torch.inf))
    _assert_finite([cosine, *gradients])


def no_classes() -> None:
    lse, cosine, of_embedding, of_centers = _ours((torch.ones(4, 32), torch.ones(0, 32), torch.full((4,), -1)))
    assert torch.equal(lse, torch.full((4,), -torch.inf))
    assert not cosine.any()
    assert of_embedding.shape == (4, 32)
    assert not of_embedding.any()
    assert of_centers.shape == (0, 32)


def gradients_of_centers_are_at_right_angles_to_them() -> None:
    problem = _problem(21, 37, 48)
    gradient = _ours(problem, products="bf16")[3]
    along = (gradient * problem[1]).sum(1)
    assert (along.abs() <= 1e-6 * gradient.norm(dim=1) * problem[1].norm(dim=1)).all()


def some_rows_in_two_rounds_by_autograd() -> None:
    embedding, centers, _ = _problem(12, 40, 32)
    rows = torch.tensor([0, 3, 4, 11, 12, 13, 17, 30, 39])
    target = torch.tensor([0, 8, -1, 3, 3, 2, 7, -1, -1, 1, 4, 5])
    alone = embedding, centers[rows], target
    given = _upstream(_plain(alone, torch.float32)[0])
    rounds, whole, scores = CentersGradient(), embedding.detach().clone().requires_grad_(), []
    for part in (slice(0, 5), slice(5, 12)):
        tuning = Tuning("triton", block=4)
        known = whole[part], centers.requires_grad_(), target[part], Formula(30.0)
        scores.append(margin_logsumexp(*known, tuning, rows, rounds))
        torch.autograd.backward(scores[-1], [gradient[part] for gradient in given])
    assert whole.grad is not None
    gradient = torch.zeros_like(centers)
    for drawn, block in rounds.blocks():
        gradient[drawn] = block
    ours = [*(torch.cat(parts).detach() for parts in zip(*scores)), whole.grad, gradient[rows]]
    _assert_errs_no_more_than(_plain(alone, torch.float32), ours, _plain(alone, torch.float64))


def what_they_do_not_know_is_not_scored_by_them() -> None:
    plain = Formula(30.0)
    for dims, dtype, formula, known in (
        (512, torch.float32, plain, True),
        (1024, torch.bfloat16, replace(plain, normalized=False), True),
        (520, torch.float32, plain, False),
        (1040, torch.float32, plain, False),
        (512, torch.float64, plain, False),
        (512, torch.float32, replace(plain, subcenters=2), False),
    ):
        assert can_score(torch.empty(1, dims, dtype=dtype), formula) == known, (dims, dtype, formula)


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        sizes_that_divide_nothing,
        rows_parted_and_classes_parted,
        forward_in_several_launches,
        fewer_classes_than_a_tile,
        centers_as_they_are,
        bfloat16_embeddings_centers_and_products,
        float16_embeddings,
        default_tiles_at_512_dims,
        default_tiles_at_1024_dims,
        all_targets_elsewhere,
        all_targets_the_same,
        identical_centers,
        cosines_of_one_at_scale_128,
        a_log_sum_exp_below_the_range_of_exp,
        zero_embeddings_and_zero_centers,
        only_the_own_class,
        no_classes,
        gradients_of_centers_are_at_right_angles_to_them,
        some_rows_in_two_rounds_by_autograd,
        what_they_do_not_know_is_not_scored_by_them,
    )
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    """Return what each check said in Triton's interpreter; nothing where it passed."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_interpreter_the_kernels_are_the_reference_for(check: str, interpreted: dict[str, str]) -> None:
    assert not interpreted[check], interpreted[check]


@pytest.mark.gpu
@WANTS_GPU
@pytest.mark.parametrize("products", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("sizes", [(256, 20_000, 512), (1000, 5003, 512), (77, 999, 128), (65, 300, 1024)])
def test_on_a_gpu_the_kernels_err_no_more_than_the_reference(
    sizes: tuple[int, int, int], products: kernels.Products
) -> None:
    dtype = torch.bfloat16 if products == "bf16" else torch.float32
    embedding, centers, target = (tensor.cuda() for tensor in _problem(*sizes, dtype))
    problem = embedding, centers, target
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if products == "tf32" else "highest")
    plain = _plain(problem, dtype)
    torch.set_float32_matmul_precision(precision)
    ours = _ours(problem, products=products, tile=None, block=4096)
    _assert_errs_no_more_than(plain, ours, _plain(problem, torch.float64))


@pytest.mark.gpu
@WANTS_GPU
def test_on_a_gpu_the_gradients_have_the_same_bits_each_time() -> None:
    embedding, centers, target = (tensor.cuda() for tensor in _problem(256, 20_000, 512))
    first, second = (_ours((embedding, centers, target), products="bf16", tile=None, block=4096) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


if __name__ == "__main__":
    # Memory that nobody wrote holds NaN.
    torch.use_deterministic_algorithms(True)
    outcomes = {}
    patched = kernels._multiprocessors, kernels._PARTIALS
    for name, check in CHECKS.items():
        kernels._multiprocessors, kernels._PARTIALS = patched
        try:
            check()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))
