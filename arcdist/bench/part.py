"""A part of a step: its sizes, the ways to do it, what each is compared with before it is timed, its floor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class PartCase:
    """The sizes of a part.

    Attributes:
        part: backbone, optimizer or communication.
        what: of it is done: a net's passes, an optimizer's update, a collective.
        net: whose weights there are.
        rows: of a forward pass, or of embeddings on each rank.
        device: cpu or cuda.
        ranks: processes that share it.
    """

    part: str
    what: str
    net: str
    rows: int
    device: str
    ranks: int = 1
    embedding_dim: int = 512


class Subject(Protocol):
    """One part, ready to be done."""

    def prepare(self) -> None:
        """Do what has to come before a step, and is not timed."""
        ...

    def step(self) -> None:
        """Do it once."""
        ...

    def error(self) -> float:
        """Do it from its start and return the relative error of what it gives, against a plain reference."""
        ...


@dataclass(frozen=True)
class PartMethod:
    """A way to do a part.

    Attributes:
        name: as the results call it.
        build: makes its subject.
        error_limit: from this relative error on it counts as wrong, and is not timed.
        needed: MiB of the processes of all ranks, about and at most.
        precision: of its products.
    """

    name: str
    build: Callable[[PartCase], Subject]
    error_limit: float
    needed: Callable[[PartCase], float]
    precision: str = "fp32"

    def needed_mib(self, case: PartCase) -> float:
        """Return about what the processes of all ranks need for it."""
        return self.needed(case)


@dataclass(frozen=True)
class Part:
    """The ways to do a part; the first is the plain one that others are held against.

    Attributes:
        methods: by what is done.
        moved: bytes that a step has to read and write, or to send and receive, on all ranks; 0: it multiplies.
        operations: multiplications and additions of a step; 0: it only moves.
        rate: of the floors, that bounds the bytes moved: of a copy, or of an update in place.
    """

    methods: Callable[[str], tuple[PartMethod, ...]]
    moved: Callable[[PartCase], float]
    operations: Callable[[PartCase], float]
    rate: str = "copy_gb_per_s"

    def method(self, what: str, name: str) -> PartMethod:
        """Return a way to do it by its name."""
        return next(method for method in self.methods(what) if method.name == name)

    def floor(self, case: PartCase, method: PartMethod, floors: Mapping[str, Any]) -> dict[str, float]:
        """Return the seconds that this machine's best rates allow, and the bytes or operations that they are of."""
        if moved := self.moved(case):
            return {"moved_bytes": moved, "floor_seconds": moved / (floors[self.rate] * 1e9)}
        rates = [row["gflop_per_s"] for row in floors["products"] if row["dtype"] == method.precision]
        operations = self.operations(case)
        return {"operations": operations} | ({"floor_seconds": operations / (max(rates) * 1e9)} if rates else {})


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, relative to the norm of what is expected, in float64."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all their elements, one after another, in float64."""
    return torch.cat([tensor.detach().double().cpu().reshape(-1) for tensor in tensors])
