"""Versions: what is installed, whether arcdist can work with it, and whether DALI decodes."""

import platform
import sys
from importlib import metadata

import torch
import torch.cuda.nccl
from packaging.requirements import InvalidRequirement, Requirement

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.order import Order
from arcdist.data.synthetic import SyntheticConfig, encode
from arcdist.data.torch_loader import LoaderConfig, TorchLoader
from arcdist.doctor.finding import Finding

_FACES, _FACE_PX = 4, 64
# nvJPEG rounds otherwise than libjpeg-turbo, whose pixels are a CPU's.
_LEVELS_ON_GPU = 4.0


def look_at_software(device: torch.device) -> list[Finding]:
    """Return what is found of Python, the packages, and DALI on ``device``."""
    return [_python(), _packages(), _torch(), _dali(device)]


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all ranks: of Python, arcdist and what it requires."""
    own = {"python": platform.python_version(), "arcdist": _version("arcdist")}
    return own | {wanted.name: _version(wanted.name) for wanted in _required()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _required() -> list[Requirement]:
    """Return what arcdist requires without an extra; nothing where it runs from a folder that was never installed."""
    try:
        texts = metadata.requires("arcdist") or []
        wanted = [Requirement(text) for text in texts]
    except (metadata.PackageNotFoundError, InvalidRequirement):
        return []
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def _python() -> Finding:
    found = f"{platform.python_version()} ({platform.system()} {platform.release()}, {platform.machine()})"
    if sys.platform.startswith("linux"):
        return Finding("python", found)
    return Finding("python", found, "advice", "several ranks are tested on Linux alone: train there")


def _packages() -> Finding:
    required = _required()
    wrong = [
        f"{one.name}{one.specifier}" for one in required if not one.specifier.contains(_version(one.name) or "0", True)
    ]
    found = f"arcdist {_version('arcdist') or 'not installed'}, {len(required)} packages that it requires"
    if not wrong:
        return Finding("packages", found)
    told = ", ".join(f"{Requirement(one).name} {_version(Requirement(one).name) or 'missing'}" for one in wrong)
    return Finding("packages", f"{found}; {told}", "fault", "pip install " + " ".join(f"'{one}'" for one in wrong))


def _torch() -> Finding:
    parts = [torch.__version__]
    if torch.version.cuda:
        parts.append(f"CUDA {torch.version.cuda}")
    if torch.cuda.is_available():
        parts.append(f"cuDNN {torch.backends.cudnn.version()}")
        parts.append("NCCL " + ".".join(map(str, torch.cuda.nccl.version())))
    triton = _version("triton")
    parts.append(f"Triton {triton}" if triton else "no Triton")
    if torch.cuda.is_available() and not triton:
        advice = "the head's kernels need Triton: pip install triton"
        return Finding("torch", ", ".join(parts), "advice", advice)
    return Finding("torch", ", ".join(parts))


def _dali(device: torch.device) -> Finding:
    on_gpu = device.type == "cuda"
    if not has_dali():
        advice = "images are decoded on the CPU, which may be slower than the GPU: pip install 'arcdist[dali]'"
        return Finding("dali", "not installed", *(("advice", advice) if on_gpu else ()))
    name = next((d for d in map(_distribution, metadata.distributions()) if d.startswith("nvidia-dali")), "DALI")
    try:
        apart = _levels_apart(device)
    except Exception as error:  # whatever DALI raises where its libraries do not match the machine
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        advice = "use data.loader.kind=torch, or install the DALI of this CUDA"
        return Finding("dali", f"{name} decodes nothing: {reason}", "fault", advice)
    found = f"{name} decodes {_FACES} faces on {device.type} within {apart:g} of 255 levels of libjpeg-turbo"
    if apart > (_LEVELS_ON_GPU if on_gpu else 0):
        return Finding("dali", found, "fault", "its pixels are not those of the images: use data.loader.kind=torch")
    return Finding("dali", found)


def _distribution(found: metadata.Distribution) -> str:
    return f"{found.metadata['Name']} {found.version}"


class _Faces:
    """Rendered faces; the label is the sample."""

    def __init__(self) -> None:
        config = SyntheticConfig(image_size=_FACE_PX)
        self._images = [encode(config, identity, 0) for identity in range(_FACES)]

    def read(self, sample: int) -> tuple[int, bytes]:
        return sample, self._images[sample]

    def name(self, sample: int) -> str:
        return f"face {sample}"


def _levels_apart(device: torch.device) -> float:
    """Return the mean difference of the pixels of DALI and of the torch loader, in levels of 255."""
    faces, size = _Faces(), (_FACE_PX, _FACE_PX)
    plain = AugmentConfig(flip=0.0)
    images = []
    for kind, where in ((TorchLoader, torch.device("cpu")), (DaliLoader, device)):
        parts = (faces, Order(_FACES, 0), Augment(plain, 0), _FACES, 0, 1, size, LoaderConfig(workers=1, prefetch=1))
        (batch,) = kind(*parts, device=where).batches(0, 1)
        images.append(batch.images.float().cpu())
    return float((images[0] - images[1]).abs().mean())
