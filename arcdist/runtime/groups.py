"""Groups of ranks that share classes or weights out: all ranks, or groups of neighbors that hold them all each."""

import functools
from dataclasses import dataclass

from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from arcdist.errors import ConfigError
from arcdist.runtime import collectives


@dataclass(frozen=True)
class ClassGroups:
    """This rank's place where classes are shared out.

    Attributes:
        shards: ranks that share all classes.
        index: this rank among them.
        count: how many such groups there are; each holds the same centers.
        within: the ranks of this one's group; None: all ranks.
        across: those of all groups that hold the same classes as this one; None where there is one group.
    """

    shards: int
    index: int
    count: int = 1
    within: ProcessGroup | None = None
    across: ProcessGroup | None = None


def class_groups(group_size: int, device_type: str) -> ClassGroups:
    """Return the groups of ``group_size`` neighboring ranks each; 0: one of all ranks. Every rank calls it alike.

    Errors: ConfigError where the ranks cannot be parted so.
    """
    ranks = collectives.world_size()
    if not group_size or group_size == ranks:
        return ClassGroups(ranks, collectives.rank())
    mesh = rank_mesh(group_size, device_type, "head.group_size")
    assert mesh is not None
    within, across = mesh.get_group("within"), mesh.get_group("groups")
    return ClassGroups(group_size, collectives.rank() % group_size, ranks // group_size, within, across)


def rank_mesh(group_size: int, device_type: str, key: str) -> DeviceMesh | None:
    """Return the ranks as ``groups × within``, or as ``within`` where there is one group; None without any ranks.

    Args:
        group_size: of neighboring ranks; 0: one group of all.
        device_type: cpu or cuda.
        key: of the configuration, that says ``group_size``.

    Errors: ConfigError where the ranks cannot be parted so.
    """
    if group_size and collectives.world_size() % group_size:
        raise ConfigError(
            f"{key}: {group_size}: must divide the number of ranks, {collectives.world_size()}; 0 makes one "
            "group of them"
        )
    if not collectives.is_distributed():
        return None
    if not group_size or group_size == collectives.world_size():
        return init_device_mesh(device_type, (collectives.world_size(),), mesh_dim_names=("within",))
    return _two_level_mesh(group_size, collectives.world_size(), device_type)


@functools.cache  # a mesh of parts makes process groups
def _two_level_mesh(group_size: int, ranks: int, device_type: str) -> DeviceMesh:
    return init_device_mesh(device_type, (ranks // group_size, group_size), mesh_dim_names=("groups", "within"))
