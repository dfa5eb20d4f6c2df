"""glibc's allocator, told to keep what it has.

As it starts, glibc gives every large tensor back to the kernel, and the next one pays a page fault for each 4 KiB.
Keeping the memory makes a training step on a CPU faster, for a larger peak of the process.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_memory() -> bool:
    """Keep freed memory in this process, from now on; return whether the C library knows how (glibc only)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        [
            mallopt(_M_MMAP_MAX, 0),
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
            mallopt(_M_TOP_PAD, 2**28),
        ]
    )
