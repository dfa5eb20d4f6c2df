"""Losses over embeddings and class centers, beside the margin softmax or in its place."""

from arcdist.heads.auxiliary.config import LossesConfig
from arcdist.heads.auxiliary.protocol import AuxiliaryLoss, Rows

__all__ = ["AuxiliaryLoss", "LossesConfig", "Rows"]
