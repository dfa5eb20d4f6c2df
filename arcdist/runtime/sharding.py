"""Which rows of a sharded matrix a rank holds."""


def shard_rows(count: int, rank: int, world_size: int) -> range:
    """Return the rows of rank ``rank``, by the rule of ``torch.chunk`` and so of DTensor's ``Shard(0)``.

    Every rank holds ``⌈count / world_size⌉`` rows, but the last ones may hold fewer, or none.
    """
    size = -(-count // world_size)
    return range(min(rank * size, count), min((rank + 1) * size, count))
