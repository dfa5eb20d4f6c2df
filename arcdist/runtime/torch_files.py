"""What ``torch.save`` wrote, read without running what it names."""

import pickle
from pathlib import Path
from typing import Any

import torch

from arcdist.errors import DataError


def read_torch(path: Path, mmap: bool = False) -> Any:
    """Return what is in a file: tensors on the CPU, in lists and dicts with numbers and words.

    Args:
        path: of the file.
        mmap: whether a tensor's bytes are read when they are used.

    Errors: DataError for a file that is absent, damaged, or of another kind. A pickle that would run code is refused.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except Exception as error:  # damaged files raise errors of a dozen classes in torch
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise DataError(
                f"{path}: refused, since loading it would run code of its own; have its maker save the state_dict alone"
            ) from error
        raise DataError(f"{path}: not what torch.save writes of a state_dict, or damaged") from error
