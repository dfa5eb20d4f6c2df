"""What a run says: one line from rank 0, not one from each rank."""

import logging
import sys


def set_up_log(rank: int) -> logging.Logger:
    """Return the logger of arcdist; ranks other than 0 only warn, and say who they are."""
    logger = logging.getLogger("arcdist")
    logger.disabled = False  # Hydra turns off the loggers that it finds
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"rank {rank}: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    return logger
