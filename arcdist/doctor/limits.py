"""Limits that a container or a system sets: shared memory, open files, locked memory, and the environment."""

import os
import resource
import shutil
from pathlib import Path

from arcdist.doctor.finding import Finding

_MIB = 2**20
# NCCL's ranks of one node talk through /dev/shm where their GPUs cannot reach each other; Docker gives 64 MiB.
_SHARED_MIB = 1024
# A group of ranks is a socket for each pair and group of them; the rest are records, logs and libraries.
_FILES, _FILES_A_RANK = 512, 4
_SLOW = ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE")
_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def look_at_limits(world_size: int, local_gpus: int) -> list[Finding]:
    """Return what is found of this node's limits, for so many ranks in all and so many that are on GPUs of it."""
    return [_shared_memory(local_gpus), _files(world_size), *_locked_memory(local_gpus), _environment(world_size)]


def _shared_memory(local_gpus: int, folder: str = "/dev/shm") -> Finding:
    if not Path(folder).is_dir():
        return Finding("shared memory", f"no {folder}")
    usage = shutil.disk_usage(folder)
    found, figures = f"{usage.free / _MIB:,.0f} MiB free of {usage.total / _MIB:,.0f}", {"free_mib": usage.free / _MIB}
    if local_gpus > 1 and usage.free < _SHARED_MIB * _MIB:
        advice = f"NCCL may need more than {_SHARED_MIB} MiB: docker run --shm-size=8g, or an emptyDir of medium Memory"
        return Finding("shared memory", found, "advice", advice, figures)
    return Finding("shared memory", found, figures=figures)


def _files(world_size: int) -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    need = _FILES + _FILES_A_RANK * world_size
    if limit == resource.RLIM_INFINITY:
        return Finding("open files", "no limit")
    found, figures = f"{limit:,} at a time, about {need:,} needed", {"limit": float(limit), "needed": float(need)}
    if limit < need:
        return Finding("open files", found, "fault", f"ulimit -n {max(65536, 2 * need)}", figures)
    return Finding("open files", found, figures=figures)


def _locked_memory(local_gpus: int) -> list[Finding]:
    """Return what is found of the memory that InfiniBand's cards read, where there are such."""
    if not local_gpus or not Path("/dev/infiniband").is_dir():
        return []
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return [Finding("locked memory", "no limit")]
    advice = "InfiniBand's cards need it without a limit: ulimit -l unlimited, or docker run --ulimit memlock=-1"
    return [Finding("locked memory", f"{limit / _MIB:,.1f} MiB", "advice", advice)]


def _environment(world_size: int) -> Finding:
    ours = sorted(name for name in os.environ if name.startswith(("NCCL_", "GLOO_", "CUDA_VISIBLE")))
    found = ", ".join(f"{name}={os.environ[name]}" for name in [*ours, "OMP_NUM_THREADS"] if name in os.environ)
    slow = [name for name in _SLOW if os.environ.get(name, "0") not in ("", "0")]
    if slow:
        return Finding("environment", found, "advice", f"makes the ranks' link slower: unset {' '.join(slow)}")
    if world_size > 1 and "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get(_SHARED_STORE) != "1":
        advice = f"torchrun --max-restarts works with {_SHARED_STORE}=1 alone; set it before torchrun"
        return Finding("environment", found or "nothing set", "advice", advice)
    return Finding("environment", found or "nothing set")
