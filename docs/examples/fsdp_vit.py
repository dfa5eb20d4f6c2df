"""A trunk too large for one GPU: PartialFC beside FSDP2, in a loop of one's own (else: ``train.parallel=fsdp``).

torchrun --nproc_per_node=2 docs/examples/fsdp_vit.py
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from arcdist.backbones import create_backbone
from arcdist.heads import PartialFC

CLASSES, DIM = 1_000, 128


def main(name: str = "vit_l_dp005_mask_005", steps: int = 20, batch: int = 64) -> list[float]:
    """Train on this rank and return the loss of every step, which is the same on every rank."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    trunk = create_backbone(name, DIM).to(device)
    mesh = init_device_mesh(device, [dist.get_world_size()])
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if device == "cuda" else MixedPrecisionPolicy()
    for block in trunk.blocks:  # each block's weights are gathered as it is reached, and let go after it
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(trunk, mesh=mesh, mp_policy=policy)
    head = PartialFC(DIM, CLASSES, device=device)  # sharded by itself: FSDP must not see it
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=1e-3, weight_decay=0.05)
    of_centers = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    draws = torch.Generator().manual_seed(1 + dist.get_rank())
    losses = []
    for _ in range(steps):
        labels = torch.randint(CLASSES, [batch], generator=draws)
        images = torch.rand(batch, 3, 112, 112, generator=draws) * 2 - 1  # put your loader here
        loss = head(trunk(images.to(device)), labels.to(device))
        loss.backward()  # FSDP averages the trunk's gradients over the ranks, as DDP does
        for one in (optimizer, of_centers):
            one.step()
            one.zero_grad()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    dist.init_process_group()
    losses = main()
    if dist.get_rank() == 0:
        print(f"loss {losses[0]:.2f} → {losses[-1]:.2f}")
    dist.destroy_process_group()
