"""PartialFC in a loop of Lightning Fabric.

torchrun --nproc_per_node=2 docs/examples/fabric.py
"""

import os

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from arcdist.heads import PartialFC

PRODUCTS, DIM, BATCH = 2_000, 64, 96


def pictures(step: int) -> tuple[Tensor, Tensor]:
    """Return this rank's rows of a batch of 28×28 pictures, and their product ids; made up, put your loader here."""
    looks = torch.randn(PRODUCTS, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1 + step)
    products = torch.randint(PRODUCTS, [BATCH], generator=draws)
    images = looks[products] + 0.5 * torch.randn(BATCH, 1, 28, 28, generator=draws)
    mine = slice(dist.get_rank(), None, dist.get_world_size()) if dist.is_initialized() else slice(None)
    return images[mine], products[mine]


def main(fabric: Fabric, steps: int = 60) -> list[float]:
    """Train on this rank, and return the loss of every step: the same on every rank, and for any number of them."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 256), nn.LayerNorm(256), nn.GELU(), nn.Linear(256, DIM))
    head = PartialFC(DIM, PRODUCTS).to(fabric.device)  # sharded by itself: no strategy may wrap it
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], lr=3e-3)
    trunk, optimizer = fabric.setup(trunk, optimizer)
    losses = []
    for step in range(steps):
        images, products = (tensor.to(fabric.device) for tensor in pictures(step))
        loss = head(trunk(images), products)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    fabric = Fabric(strategy="ddp", devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    fabric.launch()
    losses = main(fabric)
    fabric.print(f"loss {losses[0]:.2f} → {losses[-1]:.2f}")
    if dist.is_initialized():  # Fabric leaves it open, and its threads would now and then abort the program's end
        dist.destroy_process_group()
