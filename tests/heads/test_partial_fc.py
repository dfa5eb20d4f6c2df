"""Loss and gradients of the sharded head against one dense process in float64."""

import inspect
import math

import pytest
import torch
from support import run_ranks
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.nn import functional as F

from arcdist.errors import ConfigError, DataError
from arcdist.heads import PartialFC
from arcdist.heads.sampling import drawn_rows
from arcdist.margins import Combined
from arcdist.ops.margin_logsumexp import Tuning
from arcdist.runtime import collectives

DIM, ROWS = 8, 30


def _batch(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    embeddings = 3 * torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(classes, (ROWS,), generator=generator)


def _dense(classes: int, margin: Combined, kept: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss and gradients of embeddings and centers by the plain definition: one process, all logits."""
    embeddings, labels = _batch(classes)
    centers = PartialFC(DIM, classes, dtype=torch.float64).centers.detach().requires_grad_()
    embeddings.requires_grad_()
    logits = F.normalize(embeddings) @ F.normalize(centers).T
    target = margin.target_logit(logits.gather(1, labels[:, None])[:, 0], embeddings.norm(dim=1))
    logits = (margin.scale * logits).scatter(1, labels[:, None], target[:, None])
    if kept is not None:
        logits = logits.masked_fill(~kept, -torch.inf)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    assert embeddings.grad is not None
    assert centers.grad is not None
    return loss.detach(), embeddings.grad, centers.grad


def _sharded(classes: int, margin: Combined, sample_rate: float) -> tuple[Tensor, Tensor, Tensor]:
    head = PartialFC(DIM, classes, margin, sample_rate, dtype=torch.float64)
    embeddings, labels = _batch(classes)
    rank, size = collectives.rank(), collectives.world_size()
    mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    rows = embeddings[mine].clone().requires_grad_()
    loss = head(rows, labels[mine])
    loss.backward()
    assert rows.grad is not None
    assert head.centers.grad is not None
    return loss.detach(), rows.grad, head.centers.grad


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("classes", [1, 2, 7, 1003])
def test_loss_and_gradients_do_not_depend_on_world_size(world_size: int, classes: int) -> None:
    margin = Combined(30.0, 1.0, 0.3, 0.1)
    loss, embedding_gradient, centers_gradient = _dense(classes, margin)
    answers = run_ranks(_sharded, world_size, classes, margin, 1.0)
    for rank_loss, _, _ in answers:
        torch.testing.assert_close(rank_loss, loss, rtol=1e-12, atol=1e-12)
    # DDP takes the mean over ranks; a rank's rows are in no other rank's mean.
    rows = torch.cat([gradient for _, gradient, _ in answers]) / world_size
    torch.testing.assert_close(rows, embedding_gradient, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(torch.cat([c for _, _, c in answers]), centers_gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_sampled_softmax_is_the_dense_one_over_the_drawn_classes(world_size: int) -> None:
    margin = Combined(30.0)
    drawn = drawn_rows(_batch(200)[1], range(200), 0.2, 0, 0)
    kept = torch.zeros(200, dtype=torch.bool).index_fill(0, drawn, True)
    assert 30 <= int(kept.sum()) < 90
    loss, embedding_gradient, centers_gradient = _dense(200, margin, kept)
    answers = run_ranks(_sharded, world_size, 200, margin, 0.2)
    torch.testing.assert_close(answers[0][0], loss, rtol=1e-12, atol=1e-12)
    rows = torch.cat([gradient for _, gradient, _ in answers]) / world_size
    torch.testing.assert_close(rows, embedding_gradient, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(torch.cat([c for _, _, c in answers]), centers_gradient, rtol=1e-11, atol=1e-13)


def test_initial_centers_differ_between_classes_and_do_not_depend_on_world_size() -> None:
    whole = PartialFC(DIM, 1000).centers.detach()
    assert len(whole.unique(dim=0)) == 1000
    assert abs(float(whole.std()) - 0.01) < 1e-3
    shards = run_ranks(_initial, 3, 1000)
    assert torch.equal(torch.cat(shards), whole)


def _initial(classes: int) -> Tensor:
    return PartialFC(DIM, classes).centers.detach()


def test_two_rounds_of_half_the_rows_accumulate_the_gradient_of_the_whole() -> None:
    embeddings, labels = _batch(50)
    whole, halves = (PartialFC(DIM, 50, sample_rate=0.3, dtype=torch.float64) for _ in range(2))
    whole.begin_step(3, labels)
    whole(embeddings, labels).backward()
    halves.begin_step(3, labels, 2)
    for part in (slice(0, 15), slice(15, 30)):
        (halves(embeddings[part], labels[part]) / 2).backward()
    torch.testing.assert_close(halves.centers.grad, whole.centers.grad)


class Recorder:
    """Takes what a head hands out."""

    def __init__(self, like: Tensor) -> None:
        self.gradient, self.touched = torch.zeros_like(like), torch.zeros(len(like), dtype=torch.long)
        self.begun: list[int | None] = []
        self.ended = 0

    def begin(self, rows: Tensor | None) -> None:
        self.begun.append(None if rows is None else len(rows))

    def apply(self, rows: slice | Tensor, gradient: Tensor) -> None:
        self.gradient[rows] = gradient
        self.touched[rows] += 1

    def end(self) -> None:
        self.ended += 1


def _fused(classes: int, sample_rate: float, subcenters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centers' gradient of two rounds, the same as a fused head hands it out, and how often each row is."""
    embeddings, labels = _batch(classes)
    rank, size = collectives.rank(), collectives.world_size()
    mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    heads = [
        PartialFC(
            DIM,
            classes,
            sample_rate=sample_rate,
            subcenters=subcenters,
            tuning=Tuning(block=4),
            dtype=torch.float64,
        )
        for _ in range(2)
    ]
    recorder = Recorder(heads[1].centers)
    heads[1].fuse(recorder)
    for head in heads:
        head.begin_step(7, labels[mine], 2)
        for half in range(2):
            rows = slice(mine.start + half, mine.stop, 2)
            head(embeddings[rows], labels[rows]).backward()
        head.end_step()
    heads[1].update_centers()
    assert heads[1].centers.grad is None
    assert recorder.ended == 1
    assert set(recorder.begun) == {None if sample_rate == 1 else int(recorder.touched.sum())}
    assert heads[0].centers.grad is not None
    return heads[0].centers.grad, recorder.gradient, recorder.touched


@pytest.mark.parametrize(("sample_rate", "subcenters"), [(1.0, 1), (0.3, 1), (1.0, 3), (0.3, 3)])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_fused_head_hands_out_block_by_block_what_a_plain_one_leaves_in_grad(
    world_size: int, sample_rate: float, subcenters: int
) -> None:
    everyones = run_ranks(_fused, world_size, 50, sample_rate, subcenters)
    for gradient, blocks, _ in everyones:
        torch.testing.assert_close(blocks, gradient, rtol=1e-11, atol=1e-13)
    touched = torch.cat([touched for _, _, touched in everyones])
    assert touched.max() == 1
    assert bool(touched.all()) == (sample_rate == 1)


def _of_two_classes(sample_rate: float, fused: bool) -> tuple[Tensor, int]:
    """Return the loss of a step with labels of the first two of six classes, and how many classes it draws here."""
    head = PartialFC(DIM, 6, sample_rate=sample_rate, dtype=torch.float64)
    recorder = Recorder(head.centers)
    if fused:
        head.fuse(recorder)
    embeddings = _batch(6)[0][collectives.rank() :: collectives.world_size()]
    labels = torch.arange(len(embeddings)) % 2
    head.begin_step(0, labels)
    loss = head(embeddings, labels)
    loss.backward()
    if fused:
        head.update_centers()
    return loss.detach(), int(recorder.touched.sum()) if fused else int((head.centers.grad != 0).any(1).sum())


@pytest.mark.parametrize("fused", [False, True])
def test_a_rank_of_which_a_step_draws_no_class_takes_part_in_it(fused: bool) -> None:
    answers = run_ranks(_of_two_classes, 3, 1e-9, fused)
    assert [drawn for _, drawn in answers] == [2, 0, 0]
    assert all(torch.equal(loss, answers[0][0]) for loss, _ in answers)


def _collectives_of_a_step(rows: int, dtype: torch.dtype) -> list[int]:
    """Return the bytes that this rank puts into each collective of a step of the head."""
    head = PartialFC(512, 100)
    embeddings = torch.randn(rows, 512, dtype=dtype, requires_grad=True)
    with torch.profiler.profile(record_shapes=True) as profile:
        head(embeddings, torch.arange(rows)).backward()
    itemsize = {"unsigned char": 1, "float": 4, "c10::BFloat16": 2}
    sent = [event for event in profile.events() if event.name.startswith("gloo:")]
    return [math.prod(event.input_shapes[0]) * itemsize[event.input_dtypes[0]] for event in sent]


@pytest.mark.skipif(
    "input_dtypes" not in inspect.signature(FunctionEvent.__init__).parameters,
    reason="this torch's profiler does not tell of what dtype a collective's values are",
)
@pytest.mark.parametrize("world_size", [2, 3])
def test_a_step_takes_four_collectives_and_half_the_bytes_of_partial_fc_v2_in_bf16(world_size: int) -> None:
    rows, everyones = 16, 16 * world_size
    # Two gathers, three all-reduces of a number a row, one reduce a rank, all in float32 but the int64 labels.
    theirs = rows * (4 * 512 + 8) + 3 * 4 * everyones + everyones * 4 * 512
    for sent in run_ranks(_collectives_of_a_step, world_size, rows, torch.bfloat16):
        assert len(sent) == 4
        assert sum(sent) <= 0.505 * theirs  # the embeddings' bytes are exactly half; three numbers a row are as theirs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_scored_in_the_centers_dtype(dtype: torch.dtype) -> None:
    embeddings, labels = _batch(9)
    narrow = embeddings.to(dtype)
    head = PartialFC(DIM, 9)
    with torch.autocast("cpu", dtype=dtype):
        loss = head(narrow, labels)
    assert torch.equal(loss, head(narrow.float(), labels))


@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_that_no_rank_owns_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=rf"label {label}: must be in \[0, 7\)"):
        PartialFC(DIM, 7)(torch.ones(2, DIM), torch.tensor([0, label]))


def test_zero_embeddings_and_equal_centers_give_finite_gradients() -> None:
    head = PartialFC(DIM, 3)
    with torch.no_grad():
        head.centers.copy_(torch.ones(3, DIM))
    embeddings = torch.stack([torch.zeros(DIM), torch.ones(DIM)]).requires_grad_()
    head(embeddings, torch.tensor([0, 1])).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert head.centers.grad is not None
    assert head.centers.grad.isfinite().all()


@pytest.mark.parametrize("sample_rate", [0.0, 1.5, -0.1])
def test_a_sample_rate_outside_of_0_to_1_is_refused(sample_rate: float) -> None:
    with pytest.raises(ConfigError, match="sample_rate"):
        PartialFC(DIM, 3, sample_rate=sample_rate)
