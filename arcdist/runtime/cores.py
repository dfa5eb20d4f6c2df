"""How many cores there are to share out."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may run on; all of the machine's where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
