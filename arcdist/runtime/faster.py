"""Which of two ways to do the same work is faster on this machine."""

import math
import time
from collections.abc import Callable

_ROUNDS = 10


def is_faster(work: Callable[[], object], than: Callable[[], object]) -> bool:
    """Return whether ``work`` takes less than 0.8 of the other's time; both take turns, and the best of ten counts."""
    best_s = dict.fromkeys((work, than), math.inf)
    for _ in range(_ROUNDS):
        for each in best_s:
            start = time.perf_counter()
            each()
            best_s[each] = min(best_s[each], time.perf_counter() - start)
    return best_s[work] < 0.8 * best_s[than]
