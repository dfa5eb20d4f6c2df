"""Speaker embeddings: PartialFC over your own network and input, under plain DDP.

torchrun --nproc_per_node=2 docs/examples/ddp_speakers.py
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcdist.heads import PartialFC
from arcdist.margins import Combined

SPEAKERS, MELS, FRAMES, DIM, BATCH = 1_000, 80, 100, 64, 96


def trunk_of_speakers() -> nn.Module:
    """Return a network from log-mel frames ``[b, MELS, T]`` to embeddings ``[b, DIM]``."""
    first, second = nn.Conv1d(MELS, 128, 5), nn.Conv1d(128, 128, 3, dilation=2)
    frames = [first, nn.GroupNorm(8, 128), nn.ReLU(), second, nn.GroupNorm(8, 128), nn.ReLU()]
    return nn.Sequential(*frames, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, DIM))


def utterances(step: int) -> tuple[Tensor, Tensor]:
    """Return this rank's rows of a batch, and their global speaker ids. They are made up; put your loader here."""
    voices, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1 + step)
    speakers = torch.randint(SPEAKERS, [BATCH], generator=draws)
    mels = torch.randn(SPEAKERS, MELS, 1, generator=voices)[speakers] + torch.randn(
        BATCH, MELS, FRAMES, generator=draws
    )
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    return mels[mine], speakers[mine]


def main(steps: int = 60) -> list[float]:
    """Train on this rank, and return the loss of every step: the same on every rank, and for any number of them."""
    torch.manual_seed(0)
    trunk = DistributedDataParallel(trunk_of_speakers())
    head = PartialFC(DIM, SPEAKERS, Combined(scale=32.0, m2=0.2))  # this rank's share of the speakers
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for step in range(steps):
        mels, speakers = utterances(step)
        loss = head(trunk(mels), speakers)  # of all ranks' rows, over all speakers
        optimizer.zero_grad()
        loss.backward()  # DDP averages the trunk's gradients; the centers' are exact as they are
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    dist.init_process_group()
    losses = main()
    print(f"loss {losses[0]:.2f} → {losses[-1]:.2f}")
    dist.destroy_process_group()
