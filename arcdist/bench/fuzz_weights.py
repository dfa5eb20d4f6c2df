"""Weights and checkpoints of strangers for the fuzz."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from arcdist.backbones.weights import load_backbone_weights
from arcdist.bench.fuzz_damage import damaged, hostile_pickle, hostile_weights
from arcdist.checkpoint.folder import newest_checkpoint, sha256_of
from arcdist.checkpoint.manager import CheckpointConfig, CheckpointManager
from arcdist.checkpoint.marker import MARKER, read_marker, write_marker
from arcdist.checkpoint.reader import load

_HOSTILE = 0.3  # share of what holds a pickle
_SIGNED = 0.5  # share of checkpoints whose marker tells of the damage as if it had been written so
_VALUES: tuple[Any, ...] = (None, -1, 0, 2**70, "", "x", "../../x", [], {}, [[]], {"a": {}}, 1e308, True)


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))


class Weights:
    """A file of weights of either kind, which a small net takes."""

    shares: ClassVar[dict[str, int]] = {".pt": 10, ".safetensors": 4}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        self.before = {name: tensor.clone() for name, tensor in _net().state_dict().items()}
        torch.save(self.before, folder / "weights.pt")
        safetensors.torch.save_file(self.before, folder / "weights.safetensors")
        self.whole = {kind: (folder / f"weights{kind}").read_bytes() for kind in (".pt", ".safetensors")}

    def damage(self, kind: str, rng: np.random.Generator, canary: Path) -> str:
        """Damage the file of a kind, and return how."""
        data, how = damaged(self.whole[kind], rng)
        if kind == ".pt" and rng.random() < _HOSTILE:
            data, how = hostile_weights(rng, canary)
        (self.folder / f"weights{kind}").write_bytes(data)
        return how

    def read(self, kind: str) -> str:
        """Return what comes of reading it; an ArcdistError where it is refused."""
        net = _net()
        load_backbone_weights(self.folder / f"weights{kind}", net)
        return "read as before" if _equal(net.state_dict(), self.before) else "other numbers"


class Checkpoints:
    """A run's checkpoint, one file of which is damaged; in half of them the marker's checksums are of the damage."""

    shares: ClassVar[dict[str, int]] = {"checkpoint": 10}

    def __init__(self, folder: Path) -> None:
        self.folder, self._whole = folder / "checkpoints", folder / "whole"
        torch.manual_seed(1)
        self.before = {
            "backbone.weight": torch.randn(6, 5),
            "head.centers": torch.randn(9, 4),
            "head.count": torch.tensor(7),
            "optimizer.head.centers.momentum_buffer": torch.randn(9, 4),
        }
        about = {"config": {"seed": 1}, "scaler": {}, "train_s": 1.5, "precision": "fp32"}
        manager = CheckpointManager(self._whole, CheckpointConfig())
        manager.save(3, self.before, about, wait=True)
        self._signed = False

    def damage(self, kind: str, rng: np.random.Generator, canary: Path) -> str:
        """Damage one file, and return how."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._whole, self.folder)
        (checkpoint,) = self.folder.glob("step-*")
        marker = read_marker(checkpoint)
        path = checkpoint / sorted([*marker["files"], MARKER])[rng.integers(len(marker["files"]) + 1)]
        self._signed = bool(rng.random() < _SIGNED)
        if path.name == MARKER and self._signed:
            key = sorted(marker)[rng.integers(len(marker))]
            marker[key] = _VALUES[rng.integers(len(_VALUES))]
            write_marker(checkpoint, marker)
            return f"{MARKER} with {key}={json.dumps(marker[key])}, signed"
        data, how = damaged(path.read_bytes(), rng)
        if path.name == ".metadata" and rng.random() < _HOSTILE:
            data, how = hostile_pickle(rng, canary)
        if path.suffix == ".distcp" and rng.random() < _HOSTILE:
            harm, how = hostile_weights(rng, canary)
            data = harm.ljust(path.stat().st_size, b"\0")  # its reader takes as much as .metadata says
        path.write_bytes(data)
        if self._signed:
            marker["files"][path.name] = {"bytes": len(data), "sha256": sha256_of(path)}
            write_marker(checkpoint, marker)
        return f"{path.name}: {how}{', signed' if self._signed else ''}"

    def read(self, kind: str) -> str:
        """Return what comes of going on from it; an ArcdistError where it is refused."""
        found = newest_checkpoint(self.folder)
        if found is None:
            return "passed over"
        tensors = {name: torch.zeros_like(tensor) for name, tensor in self.before.items()}
        load(found, tensors)
        if _equal(tensors, self.before):
            return "read as before"
        return "other numbers" if self._signed else "other state"


def _equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())
