"""What a rank computes on: a GPU that torch can use, whole and free; or a CPU's cores."""

import os
from pathlib import Path

import torch

from arcdist.bench.machine import description, free_mib
from arcdist.doctor.finding import Finding
from arcdist.heads import PartialFC
from arcdist.runtime.cores import usable_cores

_GIB = 2**30
_TAKEN = 0.05  # share of a GPU's memory; the desktop, or a process that has ended badly, takes more
_LOADED = 0.5  # share of the cores
_SMALL_MIB = 2048
_CLASSES, _DIM, _ROWS = 1000, 64, 32
_TOLERANCE = 1e-2  # relative, of a loss in TF32 or narrower products


def look_at_device(device: torch.device, is_chosen: bool) -> list[Finding]:
    """Return what is found of this rank's device; ``is_chosen`` says that a user wants no GPU where it is a CPU."""
    if device.type == "cuda":
        return [_gpu(device), _loss(device)]
    return [Finding("device", "cpu, as chosen") if is_chosen else _no_gpu()]


def look_at_node(local_size: int) -> list[Finding]:
    """Return what is found of the cores and the memory that this node's ranks share."""
    return [_cores(local_size), _memory()]


def _gpu(device: torch.device) -> Finding:
    about = torch.cuda.get_device_properties(device)
    free, whole = torch.cuda.mem_get_info(device)
    kind = f"{about.name}, {whole / _GIB:.0f} GiB, sm_{about.major}{about.minor}"
    figures = {"memory_gib": whole / _GIB, "free_gib": free / _GIB}
    kernels = [int(arch.removeprefix("sm_")) for arch in torch.cuda.get_arch_list() if arch[3:].isdecimal()]
    if kernels and about.major not in {kernel // 10 for kernel in kernels}:
        advice = f"this torch has kernels for {', '.join(torch.cuda.get_arch_list())}: install one that knows the GPU"
        return Finding("device", kind, "fault", advice, figures)
    if free < (1 - _TAKEN) * whole:
        advice = "other processes hold its memory: look with nvidia-smi, and end those that nobody needs"
        return Finding("device", f"{kind}, {free / _GIB:.1f} GiB free", "advice", advice, figures)
    if about.major < 8:
        return Finding("device", kind, "advice", "it has no bf16 units: train with train.precision=fp16", figures)
    return Finding("device", kind, figures=figures)


def _no_gpu() -> Finding:
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    if not has_gpu:
        return Finding("device", "cpu")
    if torch.version.cuda is None:
        advice = "install torch's CUDA build: pip install torch"
        return Finding("device", "cpu, though the machine has a GPU: this torch is the CPU build", "fault", advice)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    advice = (
        f"CUDA_VISIBLE_DEVICES={visible} leaves none: unset it"
        if visible is not None
        else f"the driver may be too old for CUDA {torch.version.cuda}: nvidia-smi says which it has"
    )
    return Finding("device", "cpu, though the machine has a GPU: torch does not see it", "fault", advice)


def _cores(local_size: int) -> Finding:
    about = description(torch.device("cpu"), 1)
    machine, load, cores = about["machine"], about["load_before"], usable_cores()
    units = "bf16 units" if machine["cpu_bf16"] else "no bf16 units"
    found = f"{cores} cores for {local_size} rank{'s' * (local_size > 1)} ({machine['cpu']}, {units})"
    figures = {"cores": float(cores), "load": load or 0.0}
    if cores < local_size:
        return Finding("cores", found, "advice", "fewer cores than ranks: start fewer ranks on this node", figures)
    if load and load > _LOADED * (os.cpu_count() or 1):
        return Finding(
            "cores", f"{found}, load {load}", "advice", "others use them: what is measured here is low", figures
        )
    return Finding("cores", found, figures=figures)


def _memory() -> Finding:
    free = free_mib(torch.device("cpu"))
    found, figures = f"{free / 1024:.1f} GiB free", {"free_gib": free / 1024}
    if free < _SMALL_MIB:
        return Finding("memory", found, "advice", "too little for any but small runs: give the container more", figures)
    return Finding("memory", found, figures=figures)


def _loss(device: torch.device) -> Finding:
    """Compare the head's loss on the device with that of the CPU."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(_ROWS, _DIM, generator=generator)
    labels = torch.randint(_CLASSES, [_ROWS], generator=generator)
    losses = [
        float(PartialFC(_DIM, _CLASSES, device=where)(embeddings.to(where), labels.to(where)))
        for where in (torch.device("cpu"), device)
    ]
    found = f"{losses[1]:.4f} on the GPU, {losses[0]:.4f} on the CPU"
    if abs(losses[1] - losses[0]) > _TOLERANCE * losses[0]:
        return Finding("loss", found, "fault", "the GPU, its driver or Triton computes wrongly: try another GPU")
    return Finding("loss", found)
