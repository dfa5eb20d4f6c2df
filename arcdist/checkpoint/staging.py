"""Copies of a run's tensors in host memory, which a checkpoint is written from while training goes on.

The buffers live as long as the run: touching new memory takes several times as long as the copy itself.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from arcdist.checkpoint.state import AVERAGE, BACKBONE
from arcdist.runtime import collectives
from arcdist.runtime.fully_sharded import as_sharded, is_sharded, part_of


class Staging:
    """This rank's buffers."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def reserve(self, tensors: Mapping[str, Tensor]) -> int:
        """Make the buffers, and return their bytes.

        Args:
            tensors: as ``training_tensors`` names them.
        """
        for name in _of_this_rank(tensors):
            local = part_of(tensors[name].detach())
            buffer = torch.empty_like(local, device="cpu", pin_memory=local.is_cuda)
            self._buffers[name] = buffer.zero_()  # touches every page
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def copy(self, tensors: Mapping[str, Tensor], mesh: DeviceMesh | None) -> dict[str, Tensor]:
        """Return copies of what this rank writes; they hold until the next call.

        Args:
            tensors: as ``training_tensors`` names them.
            mesh: of the ranks, on the CPU; None for a world of one.
        """
        if not self._buffers:
            self.reserve(tensors)
        copies: dict[str, Tensor] = {}
        for name, buffer in self._buffers.items():
            tensor = tensors[name]
            buffer.copy_(part_of(tensor.detach()), non_blocking=True)
            copies[name] = (
                as_sharded(buffer, tensor, _on_cpu(tensor.device_mesh, mesh)) if is_sharded(tensor) else buffer
            )
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return copies


def _on_cpu(mesh: DeviceMesh, ranks: DeviceMesh | None) -> DeviceMesh | None:
    """Return the mesh of all ranks on the CPU, parted into groups as ``mesh`` is; nothing is sent over its parts."""
    return ranks if mesh.ndim == 1 else DeviceMesh("cpu", mesh.mesh, _init_backend=False)


def _of_this_rank(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of what this rank writes.

    Of a DTensor each rank writes its rows. Of what all ranks have alike, rank 0 writes the backbone and its average,
    one of which ``model.safetensors`` needs whole, and the rest is shared out evenly.
    """
    rank, loads = collectives.rank(), [0] * collectives.world_size()
    mine = []
    whole = (BACKBONE, AVERAGE)
    for name, tensor in sorted(tensors.items(), key=lambda item: (not item[0].startswith(whole), -item[1].nbytes)):
        if is_sharded(tensor):
            mine.append(name)
            continue
        owner = 0 if name.startswith(whole) else loads.index(min(loads))
        loads[owner] += tensor.nbytes
        if owner == rank:
            mine.append(name)
    return mine
