"""What ``margin_logsumexp`` means, in plain torch: holds all logits, differentiates by autograd."""

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.ops.margin_logsumexp.formula import Formula


def margin_logsumexp(embedding: Tensor, centers: Tensor, target: Tensor, formula: Formula) -> tuple[Tensor, Tensor]:
    """Return the negatives' log-sum-exp and the cosine to the own center; see ``function.margin_logsumexp``."""
    cosine = embedding @ (F.normalize(centers) if formula.normalized else centers).T
    cosine = cosine.unflatten(1, (-1, formula.subcenters)).amax(2)
    own = torch.arange(cosine.shape[1], device=target.device) == target[:, None]
    logits = formula.scale * cosine if formula.negative is None else formula.negative.logit(cosine)
    if cosine.shape[1] == 0:
        return cosine.sum(1) - torch.inf, cosine.sum(1)
    return logits.masked_fill(own, -torch.inf).logsumexp(1), cosine.masked_fill(~own, 0).sum(1)
