"""Steps of an optimizer on some rows of the centers at a time, so that no gradient of all of them ever exists.

A row that a step does not draw has no gradient there. What becomes of it is a choice:

``frozen``
    It stays as it is, momentum included. (AdamW's bias correction counts every step all the same.)
``dense``
    It moves as with a zero gradient: momentum and weight decay go on, as where the drawn rows are an indexing of the
    whole matrix (PartialFC_V2 of arcface_torch under SGD). Such a step of SGD is linear in a row's weights w and
    momentum m, with the same four numbers for every row,

        m ← μm + λw,   w ← w − ηm   (Nesterov: w ← w − η(λw + μm)),

    so the steps that a row has missed are one 2 × 2 matrix, which is applied when the row is drawn next. A step costs
    what its drawn rows cost, whatever the number of classes.
"""

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor, nn

from arcdist.errors import ConfigError
from arcdist.optim.stochastic_rounding import round_stochastically
from arcdist.runtime import seeds

UNDRAWN = ("frozen", "dense")
_CPU_BLOCK, _GPU_BLOCK = 2048, 32768  # rows that are caught up at a time: what caches hold; few launches


def check_undrawn(undrawn: str, optimizer: str) -> None:
    """Raise ConfigError where an optimizer of this name cannot treat undrawn rows so."""
    if undrawn not in UNDRAWN:
        raise ConfigError(f"optim.undrawn: {undrawn!r}: must be one of {', '.join(UNDRAWN)}")
    if undrawn == "dense" and optimizer != "sgd":
        raise ConfigError(
            f"optim.undrawn: 'dense': needs optim.name=sgd: a step of {optimizer} without a gradient divides by the "
            "root of its second moment, so the steps that a row missed have no closed form; take optim.undrawn=frozen"
        )


class CenterUpdate:
    """The centers' part of an optimizer's step: ``begin``, ``apply`` for every block of drawn rows, ``end``.

    Gives the weights that ``optimizer.step()`` gives from the whole gradient, to rounding. Hyper-parameters and state
    stay the optimizer's, so a checkpoint does not change; its own ``step`` passes the centers by, for their ``grad``
    is None. A step that is given up before its first ``apply`` (gradients overflowed) leaves nothing behind: ``begin``
    again.

    With ``undrawn="dense"`` weights and momentum of undrawn rows are behind between two steps, until ``finish``. Call
    it before anything but a next step reads the centers: a checkpoint then holds the dense state, and neither what a
    row missed nor past learning rates need to be in it. Where a run is brought up to date decides its rounding: it is
    resumed bit for bit if the checkpoint was one that it writes in any case, to rounding if stopping was its cause.

    Args:
        optimizer: SGD or AdamW with its state made, as ``OptimConfig.build`` makes it.
        centers: this rank's rows ``[S, D]``, one of its parameters.
        undrawn: ``frozen`` or ``dense``, as above; the same where every step draws all rows.

    Memory: ``dense`` keeps four bytes a row, and 32 for every step since the last ``finish``.

    Attributes:
        step: the number of the step that comes, for the rounding of bfloat16.
        void: a float32 scalar on the device, 1 where the step shall change nothing, ``finish`` included.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        centers: nn.Parameter,
        undrawn: str = "frozen",
        first_row: int = 0,
        seed: int = 0,
    ) -> None:
        check_undrawn(undrawn, "adamw" if isinstance(optimizer, torch.optim.AdamW) else "sgd")
        self._group = next(g for g in optimizer.param_groups if any(p is centers for p in g["params"]))
        if any(self._group.get(key) for key in ("dampening", "amsgrad", "maximize")):
            raise ValueError("CenterUpdate knows no dampening, amsgrad or maximize")
        state = optimizer.state[centers]
        self.step, self._first_row, self._seed = 0, first_row, seed
        self.void = torch.zeros((), device=centers.device)
        names = ("momentum_buffer", "exp_avg", "exp_avg_sq")
        self._tensors = [centers.detach(), *(state[name] for name in names if name in state)]
        self._steps: Tensor | None = state.get("step")
        self._block = _CPU_BLOCK if centers.device.type == "cpu" else _GPU_BLOCK
        self._missed = _MissedSteps(len(centers), centers.device) if undrawn == "dense" else None
        self._draws_all = False  # a step that does is missed by no row

    def begin(self, rows: Tensor | None) -> None:
        """Start a step: bring the rows that it draws up to date, so that they can be scored.

        Args:
            rows: int64, ascending; None for all.
        """
        self._draws_all = rows is None
        if rows is None:
            self.finish()
        elif self._missed is not None:
            for block in rows.split(self._block):
                self._catch_up(block, self._missed)

    def apply(self, rows: slice | Tensor, gradient: Tensor) -> None:
        """Update some rows, which ``begin`` was told of, and their state in place.

        Args:
            rows: a slice, which is changed in place, or int64 indices, which costs a copy of the rows.
            gradient: ``[n, D]``, of these rows, in the centers' dtype, float32 where that is bfloat16.
        """
        with self._borrowed(rows) as (centers, *state):
            if self._steps is None:
                self._sgd(centers, gradient, state)
            else:
                self._adamw(centers, gradient, state, self._steps)
        if self._missed is not None and not self._draws_all:
            self._missed.first[rows] = self._missed.count + 1

    def end(self) -> None:
        """Count the step, at the learning rate that the optimizer has now."""
        if self._steps is not None:
            self._steps.add_(1 - self.void)
        if self._missed is not None and not self._draws_all:
            self._missed.append(self._zero_gradient_step(), self.void)

    def finish(self) -> None:
        """Bring all rows up to date: a pass over them all where they are ``dense``, else nothing."""
        if self._missed is not None and self._missed.count:
            for start in range(0, len(self._tensors[0]), self._block):
                self._catch_up(slice(start, start + self._block), self._missed)
            self._missed.clear()

    @contextlib.contextmanager
    def _borrowed(self, rows: slice | Tensor) -> Generator[list[Tensor]]:
        """Give these rows of centers and state out to be changed."""
        if self._tensors[0].dtype == torch.bfloat16:
            copies = [tensor[rows].float() for tensor in self._tensors]
            yield copies
            numbers = self._first_row + _numbered(rows, len(self._tensors[0]), self._tensors[0].device)
            for index, (tensor, copy) in enumerate(zip(self._tensors, copies)):
                tensor[rows] = round_stochastically(copy, seeds.mix(self._seed, self.step, index), numbers)
        elif isinstance(rows, slice):
            yield [tensor[rows] for tensor in self._tensors]
        else:
            copies = [tensor.index_select(0, rows) for tensor in self._tensors]
            yield copies
            for tensor, copy in zip(self._tensors, copies):
                tensor.index_copy_(0, rows, copy)

    # The kernels of fused=True in torch's optimizers pass over a block once; on a CPU that is two to four times as fast
    # as their plain operations, with the same result (SGD) or the same to rounding (AdamW).
    def _sgd(self, centers: Tensor, gradient: Tensor, momentum: list[Tensor]) -> None:
        torch._fused_sgd_(
            *([centers], [gradient], momentum),
            **{key: self._group[key] for key in ("lr", "momentum", "weight_decay", "nesterov", "dampening")},
            maximize=False,
            is_first_step=False,
            found_inf=self.void,
        )

    def _adamw(self, centers: Tensor, gradient: Tensor, moments: list[Tensor], steps: Tensor) -> None:
        beta1, beta2 = self._group["betas"]
        torch._fused_adamw_(
            *([centers], [gradient], moments[:1], moments[1:], [], [steps.to(centers.device) + 1]),
            **{key: self._group[key] for key in ("lr", "weight_decay", "eps")},
            beta1=beta1,
            beta2=beta2,
            amsgrad=False,
            maximize=False,
            found_inf=self.void,
        )

    def _zero_gradient_step(self) -> list[list[float]]:
        """Return the matrix that takes (weight, momentum) of a row through this step of SGD without a gradient."""
        lr, decay, momentum = (self._group[key] for key in ("lr", "weight_decay", "momentum"))
        if self._group["nesterov"]:
            return [[1 - lr * decay * (1 + momentum), -lr * momentum**2], [decay, momentum]]
        return [[1 - lr * decay, -lr * momentum], [decay, momentum]]

    def _catch_up(self, rows: slice | Tensor, missed: "_MissedSteps") -> None:
        with self._borrowed(rows) as (centers, *state):
            product = missed.product(rows).to(centers.dtype)
            before = centers.clone() if state else centers
            centers.mul_(product[:, :1, 0])
            for momentum in state:
                centers.addcmul_(momentum, product[:, :1, 1])
                momentum.mul_(product[:, 1:, 1]).addcmul_(before, product[:, 1:, 0])
        missed.first[rows] = missed.count


def _numbered(rows: slice | Tensor, count: int, device: torch.device) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.arange(*rows.indices(count), device=device)


class _MissedSteps:
    """The steps since the last ``clear``, as what they make of a row that missed them.

    Attributes:
        count: how many they are.
        first: ``[S]`` int32, the first of them that a row has not taken.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.first = torch.zeros(rows, dtype=torch.int32, device=device)
        self._identity = torch.eye(2, dtype=torch.float64, device=device)[None]
        self.clear()

    def clear(self) -> None:
        """Forget the steps; no row has missed any."""
        self.count = 0
        self.first.zero_()
        self._products = self._identity  # [count + 1, 2, 2]: of the steps from the k-th on

    def append(self, step: list[list[float]], void: Tensor) -> None:
        """Count a step, given by its matrix; one that changes nothing where ``void`` is 1."""
        matrix = torch.tensor(step, dtype=torch.float64, device=self.first.device)
        matrix = torch.where(void > 0, self._identity[0], matrix)
        self._products = torch.cat([matrix @ self._products, self._identity])
        self.count += 1

    def product(self, rows: slice | Tensor) -> Tensor:
        """Return the product of the steps that each of these rows has not taken, ``[n, 2, 2]`` float64."""
        return self._products.index_select(0, self.first[rows])
