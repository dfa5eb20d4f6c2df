"""Names for stretches of a step in a profiler's trace; a few microseconds a step while nothing records."""

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor
from torch.autograd.profiler import record_function

named_range = record_function


@contextlib.contextmanager
def backward_ranges(embeddings: Tensor) -> Generator[None]:
    """Name what the backward pass in the block does: the head's part until ``embeddings`` have their gradient.

    Then comes the backbone's. Where autograd works in a thread of its own, as on a GPU, the first range ends in another
    thread than it began in, which the profiler allows for.

    Args:
        embeddings: what the backbone gave to the head, with a graph behind it.
    """
    if not torch.autograd._profiler_enabled():
        yield
        return
    ranges = contextlib.ExitStack()
    ranges.enter_context(named_range("head backward"))

    def reached(gradient: Tensor) -> None:
        ranges.close()
        ranges.enter_context(named_range("backbone backward"))

    handle = embeddings.register_hook(reached)
    try:
        yield
    finally:
        ranges.close()
        handle.remove()
