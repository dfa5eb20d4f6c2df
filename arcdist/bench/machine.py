"""What it is measured on: the machine, its versions, its memory and what a process holds of it."""

import contextlib
import datetime
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import arcdist
from arcdist.runtime.cores import usable_cores

_MIB = 2**20
_BF16_FLAGS = ("avx512_bf16", "amx_bf16")


def description(device: torch.device, threads: int) -> dict[str, Any]:
    """Return machine, its load by others, versions, commit and date, as a result file has them."""
    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "threads": threads,
        "cpu_bf16": any(flag in _proc("cpuinfo") for flag in _BF16_FLAGS),
        "memory_mib": round(_meminfo("MemTotal") / 1024),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    versions = {
        "arcdist": arcdist.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    now = datetime.datetime.now(datetime.timezone.utc)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    found = {"machine": machine, "load_before": load, "versions": versions, "commit": _commit()}
    return {**found, "date": now.isoformat(timespec="seconds")}


def free_mib(device: torch.device) -> float:
    """Return the memory that a new process could have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / _MIB
    free = _meminfo("MemAvailable") / 1024
    with contextlib.suppress(OSError, ValueError):  # the limit of a container, where there is one
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, (limit - used) / _MIB)
    return free


def used_mib(device: torch.device) -> float:
    """Return what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / _MIB
    return _status("VmRSS") / 1024


def peak_mib(device: torch.device) -> float:
    """Return the most that this process has held since ``reset_peak``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    peak = _status("VmHWM") / 1024
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MIB if sys.platform == "darwin" else 1024)


def reset_peak(device: torch.device) -> None:
    """Let ``peak_mib`` start from what is held now, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # proc(5): resets VmHWM


def cpu_s(pid: int) -> float:
    """Return the cores' time that a process has used; 0 where the system does not tell, or it has ended."""
    fields = _proc(f"{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0  # proc(5): utime, stime


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text()
    except OSError:
        return ""


def _status(key: str) -> float:
    found = re.search(rf"{key}:\s*(\d+) kB", _proc("self/status"))
    return float(found[1]) if found else 0.0


def _meminfo(key: str) -> float:
    found = re.search(rf"{key}:\s*(\d+) kB", _proc("meminfo"))
    return float(found[1]) if found else float("inf")


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _proc("cpuinfo"))
    return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the checkout that arcdist runs from, marked where files differ from it."""
    checkout = Path(__file__).parent.parent.parent
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
