"""The tensors of a run, by name, as views of the live ones: saving reads them, loading fills them in place.

Centers and what an optimizer keeps for them are DTensors of global shape, so that a checkpoint may be loaded on
another number of ranks than wrote it; the backbone's tensors are too where its ranks share them out. Everything else is
the same on every rank and is written once.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from arcdist.runtime.fully_sharded import as_sharded, is_sharded, own_parameter
from arcdist.runtime.groups import rank_mesh

BACKBONE = "backbone."  # begins the names of its tensors
AVERAGE = "average."  # begins those of the moving average of them


def training_tensors(
    backbone: nn.Module,
    centers: nn.Parameter,
    num_classes: int,
    optimizer: torch.optim.Optimizer,
    *,
    subcenters: int = 1,
    sharded: Mapping[str, Tensor] | None = None,
    replicated: Mapping[str, Tensor] | None = None,
    average: nn.Module | None = None,
    group_size: int = 0,
) -> dict[str, Tensor]:
    """Return every tensor that a run goes on from, under a name that does not depend on the number of ranks.

    Names: ``backbone.KEY``, ``average.KEY``, ``head.centers``, ``head.KEY``, ``optimizer.PARAMETER.KEY``.

    Args:
        backbone: as the recipe names it, without a wrapper.
        centers: this rank's rows ``[S · subcenters, D]``.
        num_classes: of all ranks.
        optimizer: of both, with its state made.
        subcenters: rows of a class.
        sharded: what else the head has a row of for each class of this rank, by key.
        replicated: what else it has, the same on every rank.
        average: of the backbone's weights over the steps, where a run keeps one.
        group_size: ranks that share the classes, as the head has it; every such group holds them all.
    """
    mesh = rank_mesh(group_size, centers.device.type, "head.group_size")
    tensors = {f"{BACKBONE}{name}": tensor for name, tensor in backbone.state_dict().items()}
    if average is not None:
        tensors |= {f"{AVERAGE}{name}": tensor for name, tensor in average.state_dict().items()}
    of_backbone = backbone.named_parameters(BACKBONE.removesuffix("."))
    named = {own_parameter(parameter): (name, parameter) for name, parameter in of_backbone}

    def of_all_classes(rows: Tensor, each: int = 1) -> Tensor:
        # By class first, so that every rank's part begins where one of its classes does.
        return _global_rows(rows if each == 1 else rows.unflatten(0, (-1, each)), num_classes, mesh)

    tensors["head.centers"] = of_all_classes(centers.detach(), subcenters)
    tensors |= {f"head.{key}": of_all_classes(rows) for key, rows in (sharded or {}).items()}
    tensors |= {f"head.{key}": tensor for key, tensor in (replicated or {}).items()}
    for parameter, key, value in _optimizer_tensors(optimizer):
        name, whole = named.get(parameter, ("head.centers", parameter))
        if value.shape != parameter.shape:
            tensors[f"optimizer.{name}.{key}"] = value
        elif parameter is centers:
            tensors[f"optimizer.{name}.{key}"] = of_all_classes(value, subcenters)
        else:
            tensors[f"optimizer.{name}.{key}"] = as_sharded(value, like=whole)
    return tensors


def published_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that a run is about, by the backbone's keys: their average where there is one."""
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else BACKBONE
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def held_alike(tensors: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return those of ``training_tensors`` that several ranks hold, under the same names on every rank.

    Those are what is not sharded; and, where several groups of ranks hold all classes each, every part of what is, None
    where it is another rank's.
    """
    alike: dict[str, Tensor | None] = {}
    for name, tensor in tensors.items():
        if not is_sharded(tensor):
            alike[name] = tensor
        elif tensor.device_mesh.ndim > 1:
            own = tensor.device_mesh.get_local_rank("within")
            for part in range(tensor.device_mesh.size(-1)):
                alike[f"part {part} of {name}"] = tensor.to_local() if part == own else None
    return alike


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[nn.Parameter, str, Tensor]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in sorted(optimizer.state[parameter].items()):
                yield parameter, key, value


def _global_rows(rows: Tensor, count: int, mesh: DeviceMesh | None) -> Tensor:
    """Return this rank's rows as a part of the global ``[count, …]``, sharing their memory."""
    if mesh is None:
        return rows
    from torch.distributed.tensor import DTensor, Replicate, Shard

    shape = torch.Size((count, *rows.shape[1:]))
    placements = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]
    return DTensor.from_local(rows, mesh, placements, run_check=False, shape=shape, stride=rows.stride())
