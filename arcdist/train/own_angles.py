"""What a run records of its margin at work: how far the embeddings of a step lie from their own centers."""

import torch
from torch import Tensor

from arcdist.heads import PartialFC

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def own_theta(head: PartialFC) -> Tensor | None:
    """Return the angles to the own center, radians, ``[B]`` of the last round's global batch, on the head's device.

    None of a head that takes no cosines. The host does not wait for the device.
    """
    return None if head.own_cosine is None else head.own_cosine.float().clamp(-1, 1).arccos()


def own_angles(head: PartialFC) -> dict[str, float]:
    """Return quantiles of the angle to the own center over the last round's global batch, ``theta_p05_rad`` and so on.

    Empty of a head that takes no cosines. The host waits for the device, as it does for the loss that is recorded.
    """
    theta = own_theta(head)
    if theta is None:
        return {}
    found = theta.quantile(torch.tensor(QUANTILES, device=theta.device)).tolist()
    return {quantile_key(share): round(angle, 5) for share, angle in zip(QUANTILES, found)}


def quantile_key(share: float) -> str:
    """Return the key under which a quantile is recorded."""
    return f"theta_p{round(100 * share):02d}_rad"
