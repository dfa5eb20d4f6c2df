"""What ``margin_logsumexp`` means, in plain torch: holds all logits, differentiates by autograd."""

import torch
from torch import Tensor


def margin_logsumexp(embedding: Tensor, centers: Tensor, target: Tensor, target_logit: Tensor, scale: float) -> Tensor:
    """Return ``log Σ_j exp(logit_j)``, ``[B]``; see ``blockwise.margin_logsumexp`` for the arguments."""
    logits = scale * (embedding @ centers.T)
    column = torch.arange(len(centers), device=target.device)
    logits = torch.where(column == target[:, None], target_logit[:, None], logits)
    if len(centers) == 0:
        return logits.sum(1) - torch.inf
    return logits.logsumexp(1)
